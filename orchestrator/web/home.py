"""The overview: what waits, what runs, who works, and what needs a person."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.web import charts
from orchestrator.web.pages import Ask
from reasoning.stages import STAGES
from storage.rollups import HOUR_S, MINUTE_S, bucket

STAGE_ORDER = {stage.value: place for place, stage in enumerate(STAGES)}

SPANS = (
    ("hour", "last hour", "60 min ago", MINUTE_S),
    ("day", "last 24 hours", "24 h ago", HOUR_S),
    ("week", "last 7 days", "7 d ago", HOUR_S),
)
"""Of the charts: name in the series, title, how long ago it begins, width of a bucket."""

CELLS = ("generate_queued", "generate_leased", "judge_queued", "judge_leased")
"""Calls of a stage by kind and state."""


def overview(ask: Ask) -> Response:
    """The overview page, from the shared snapshot and the shared look at the broker."""
    snap = ask.snapshot()
    spans = []
    for name, title, ago, width_s in SPANS:
        buckets = getattr(snap.series, name)
        spans.append(
            {
                "title": title,
                "ago": ago,
                "unit": "minute" if width_s == MINUTE_S else "hour",
                "total": snap.series.total(name),
                "seconds": width_s * len(buckets),
                "chart": charts.columns(buckets, bucket(snap.at, width_s), width_s),
            }
        )
    stages: dict[str, dict[str, int]] = {}
    for row in snap.calls:
        kind = "generate" if row.kind == "generate" else "judge"
        cell = stages.setdefault(
            row.stage, {"generate_queued": 0, "generate_leased": 0, "judge_queued": 0, "judge_leased": 0}
        )
        cell[f"{kind}_{row.status}"] += row.calls
    ordered = sorted(stages.items(), key=lambda item: STAGE_ORDER.get(item[0], 9))
    depths = ask.web.broker.look([model.model for model in snap.models], snap.at)
    return ask.page("overview.html", snap=snap, spans=spans, stages=ordered, depths=depths)
