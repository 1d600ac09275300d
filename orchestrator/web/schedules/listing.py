"""All schedules on one page."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.schedules.documents import sentence_of
from orchestrator.web.pages import Ask
from orchestrator.web.schedules.shapes import state, tick
from storage import datasets, schedules, slots

PAGE = 100
TICKS = 10


def show(ask: Ask) -> Response:
    """Schedules by name: the rule in plain English, next and last run, the last ten outcomes."""
    now = ask.use.now()
    after = ask.query.get("after")
    with ask.use.db.read() as conn:
        rows = schedules.list_page(conn, ask.viewer.project_id, after=after, limit=PAGE)
        more, rows = len(rows) > PAGE, rows[:PAGE]
        names = datasets.names(conn, [row.dataset_id for row in rows])
        last = slots.last_of_each(conn, [row.id for row in rows], TICKS)
        reports = slots.reports(conn, [found[-1].id for found in last.values()])
    entries = []
    for row in rows:
        newest = last.get(row.id, [])
        report = (reports.get(newest[-1].id) if newest else None) or {}
        entry = {
            "row": row,
            "dataset": names.get(row.dataset_id, ""),
            "sentence": sentence_of(row.rule),
            "state": state(row, now),
            "ticks": [tick(slot) for slot in newest],
            "last": newest[-1] if newest else None,
            "rows": report.get("rows"),
            "computed": report.get("computed"),
        }
        entries.append(entry)
    return ask.page("schedules/list.html", entries=entries, following=rows[-1].name if more else None)
