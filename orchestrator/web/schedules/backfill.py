"""Backfill: what would run is shown first, and many need the name typed."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from orchestrator.schedules.backfill import CONFIRMED_ABOVE, BackfillPlan, BackfillRequest, plan_backfill, run_backfill
from orchestrator.schedules.words import shown
from orchestrator.schedules.zones import instant_of, zone_named
from orchestrator.web.pages import Ask
from orchestrator.web.schedules.slots import schedule_of
from reasoning.errors import BadInput

DAY_S = 86400.0


def plan(ask: Ask) -> Response:
    """The form, and the slots that it means once a span is given."""
    row = schedule_of(ask)
    values = {name: ask.query.get(name, "") for name in ("start", "end", "which", "order", "overlap")}
    if not values["start"] or not values["end"]:
        return _show(ask, row, values)
    try:
        with ask.use.db.read() as conn:
            found = plan_backfill(conn, row, _request(row, values), ask.use.now())
    except BadInput as error:
        return _show(ask, row, values, problem=error)
    return _show(ask, row, values, found=found)


def run(ask: Ask) -> Response:
    """Make the slots."""
    row = schedule_of(ask)
    names = ("start", "end", "which", "order", "overlap", "confirm")
    values = {name: ask.field(name) for name in names}
    try:
        with ask.use.db.write() as conn:
            run_backfill(conn, row, _request(row, values), ask.use.now(), ask.viewer.actor)
    except BadInput as error:
        return _show(ask, row, values, problem=error)
    return ask.go("schedules", row.name, done="backfill")


def _show(
    ask: Ask,
    row: object,
    values: dict[str, str],
    *,
    found: BackfillPlan | None = None,
    problem: BadInput | None = None,
) -> Response:
    zone = row.rule.get("zone", "UTC")  # type: ignore[attr-defined]
    now = ask.use.now()
    planned = [(shown(slot.due_at, zone), slot) for slot in found.slots] if found else []
    return ask.page(
        "schedules/backfill.html",
        status=200 if problem is None else 400,
        schedule=row,
        zone=zone,
        values=values,
        plan=found,
        planned=planned,
        problem=problem,
        confirmed_above=CONFIRMED_ABOVE,
        latest=_field(now, zone),
        earliest=_field(now - DAY_S, zone),
    )


def _field(at: float, zone: str) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(zone_named(zone)).strftime("%Y-%m-%dT%H:%M")


def _request(row: object, values: dict[str, str]) -> BackfillRequest:
    zone = zone_named(row.rule.get("zone", "UTC"))  # type: ignore[attr-defined]

    def moment(name: str) -> float:
        try:
            return instant_of(datetime.fromisoformat(values[name]).replace(tzinfo=None), zone)
        except ValueError:
            raise BadInput(f'{name} is "{values[name][:40]}"; choose a time', code="invalid_time", field=name) from None

    return BackfillRequest(
        start=moment("start"),
        end=moment("end"),
        which=values.get("which") or "missing",  # type: ignore[arg-type]
        newest_first=values.get("order") == "newest",
        overlap=values.get("overlap") or "queue_all",  # type: ignore[arg-type]
        confirm=values.get("confirm", ""),
    )
