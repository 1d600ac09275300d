"""The overview: what waits, what runs, who works, and what needs a person."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.web import charts
from orchestrator.web.pages import Ask
from reasoning.stages import STAGES

STAGE_ORDER = {stage.value: place for place, stage in enumerate(STAGES)}

CELLS = ("generate_queued", "generate_leased", "judge_queued", "judge_leased")
"""Calls of a stage by kind and state."""


def overview(ask: Ask) -> Response:
    """The overview page, from the shared snapshot alone."""
    snap = ask.web.snapshots.get(ask.viewer.project_id, ask.use.now())
    spans = []
    for name, title in (("hour", "last hour"), ("day", "last 24 hours"), ("week", "last 7 days")):
        buckets = getattr(snap.series, name)
        spans.append(
            {
                "title": title,
                "unit": "minute" if name == "hour" else "hour",
                "total": snap.series.total(name),
                "seconds": {"hour": 3600, "day": 86400, "week": 7 * 86400}[name],
                "ended": charts.spark([sums.ended for sums in buckets]),
                "failed": charts.spark([sums.failed for sums in buckets], height=16),
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
    return ask.page("overview.html", snap=snap, spans=spans, stages=ordered)
