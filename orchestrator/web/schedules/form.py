"""The form of a schedule: as it is filled in, a sentence and the next five times say what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from orchestrator.schedules.define import Author, ScheduleDefinition, put_schedule, without_secret
from orchestrator.schedules.documents import rule_document
from orchestrator.schedules.options import CATCH_UPS, OVERLAPS, Options
from orchestrator.schedules.rule import LAST_DAY, Rule
from orchestrator.schedules.words import shown
from orchestrator.service import new_id
from orchestrator.web.pages import Ask
from reasoning.errors import BadInput
from storage import datasets, schedules

DATASETS = 500
UNITS = {"minutes": 60, "hours": 3600, "days": 86400}
PRESETS = (
    ("0 3 * * *", "every night at three"),
    ("0 * * * *", "every hour"),
    ("*/15 * * * *", "every quarter of an hour"),
    ("0 6 * * MON-FRI", "on weekdays at six"),
    ("0 4 1 * *", "on the first of the month"),
)
RULE_FIELDS = ("kind", "cron", "every", "unit", "times", "days", "zone", "start", "end", "jitter_s", "max_runs")
NUMBERS = ("queue_cap", "catch_up_cap", "pause_after_failures", "keep_runs")
SHARES = ("failed_share", "keep_days")
TEXTS = ("overlap", "catch_up", "on_bad_row", "priority", "output_prefix")
OVERLAP_WORDS = {
    "skip": "skip this slot",
    "queue_one": "let one slot wait",
    "queue_all": "let slots wait, up to the cap",
    "cancel_running": "cancel what runs",
    "allow": "run both",
}
CATCH_UP_WORDS = {
    "none": "stay missed",
    "latest": "the latest within the window runs",
    "all": "all within the window run, up to the cap",
}


def empty(ask: Ask) -> Response:
    """The form, empty or filled with a schedule that is to be changed."""
    name = ask.query.get("name", "")
    values: dict[str, str] = {"kind": "cron", "cron": PRESETS[0][0], "zone": "UTC", "unit": "minutes"}
    row = None
    if name:
        with ask.use.db.read() as conn:
            row = schedules.named(conn, ask.viewer.project_id, name)
            if row is not None:
                values = _values_of(row, datasets.names(conn, [row.dataset_id]).get(row.dataset_id, ""))
    return _show(ask, values, row=row)


def save(ask: Ask) -> Response:
    """Make or change the schedule."""
    values = {name: ask.field(name) for name in ask.form}
    now = ask.use.now()
    try:
        body = {
            "name": values.get("name"),
            "dataset": values.get("dataset", ""),
            "rule": rule_of(values),
            "options": _options_of(values),
            "paused": values.get("paused") == "yes",
        }
        definition = ScheduleDefinition.from_mapping(body)
        author = Author(ask.viewer.project_id, ask.viewer.actor)
        with ask.use.db.write() as conn:
            put_schedule(conn, definition, author, now, new_id)
    except BadInput as error:
        return _show(ask, values, problem=error)
    return ask.go("schedules", definition.name, done="saved")


def rule(ask: Ask) -> Response:
    """A part of a page: what the fields say so far."""
    values = {name: str(ask.query.get(name, "")) for name in RULE_FIELDS}
    found, problem = None, None
    try:
        found = rule_document(Rule.from_mapping(rule_of(values)), ask.use.now())
    except BadInput as error:
        problem = error.message
    return ask.page("schedules/rule.html", rule=found, problem=problem)


def rule_of(values: Mapping[str, str]) -> dict[str, Any]:
    """The rule that form fields say; only those of the chosen kind count. Raises BadInput."""
    kind = values.get("kind") or "cron"
    found: dict[str, Any] = {"kind": kind, "zone": values.get("zone") or "UTC"}
    for name in ("start", "end"):
        if values.get(name):
            found[name] = values[name]
    for name in ("jitter_s", "max_runs"):
        if values.get(name):
            found[name] = _number(name, values[name])
    if kind == "cron":
        return found | {"cron": values.get("cron", "")}
    if kind == "interval":
        every = _number("every", values.get("every") or "0")
        return found | {"every_s": every * UNITS.get(values.get("unit", ""), 60)}
    return found | {"times": _words(values.get("times", ""))} | _days(_words(values.get("days", "")))


def _days(words: list[str]) -> dict[str, Any]:
    numbers = [LAST_DAY if word == "last" else int(word) for word in words if word == "last" or word.isdigit()]
    names = [word for word in words if word != "last" and not word.isdigit()]
    return ({"weekdays": names} if names else {}) | ({"month_days": numbers} if numbers else {})


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _number(name: str, text: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f'{name} is "{text[:40]}"; write a number', code="invalid_type", field=name) from None
    return int(value) if value.is_integer() else value


def _options_of(values: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {name: values[name] for name in TEXTS if values.get(name)}
    options |= {name: _number(name, values[name]) for name in (*NUMBERS, *SHARES) if values.get(name)}
    if values.get("window_min"):
        options["catch_up_window_s"] = 60.0 * _number("window_min", values["window_min"])
    options |= {"incremental": values.get("incremental") != "no", "parquet": values.get("parquet") == "yes"}
    if values.get("alert_url"):
        options["alerts"] = {"url": values["alert_url"], "secret": values.get("alert_secret", "")}
        if values.get("alert_drop"):
            options["alerts"]["accuracy_drop"] = _number("alert_drop", values["alert_drop"])
    return options


def _values_of(row: Any, dataset: str) -> dict[str, str]:
    """A stored schedule as form fields."""
    rule, options = Rule.from_mapping(row.rule), Options.from_mapping(row.options)
    alerts = without_secret(row.options)["alerts"]
    days = [*rule.weekdays, *("last" if day == LAST_DAY else str(day) for day in rule.month_days)]
    unit = next((name for name in ("days", "hours") if rule.every_s and rule.every_s % UNITS[name] == 0), "minutes")
    plain = {name: getattr(options, name) for name in (*TEXTS, *NUMBERS, *SHARES)}
    found = {
        "name": row.name,
        "dataset": dataset,
        "kind": rule.kind,
        "cron": rule.cron,
        "every": f"{rule.every_s / UNITS[unit]:g}" if rule.every_s else "",
        "unit": unit,
        "times": ", ".join(rule.times),
        "days": ", ".join(days),
        "zone": rule.zone,
        "start": shown(rule.start, rule.zone).replace(" ", "T") if rule.start else "",
        "end": shown(rule.end, rule.zone).replace(" ", "T") if rule.end else "",
        "jitter_s": f"{rule.jitter_s:g}" if rule.jitter_s else "",
        "max_runs": rule.max_runs,
        "window_min": f"{options.catch_up_window_s / 60:g}",
        "incremental": "yes" if options.incremental else "no",
        "parquet": "yes" if options.parquet else "no",
        "alert_url": alerts["url"],
        "alert_secret": alerts["secret"],
        "alert_drop": alerts["accuracy_drop"],
        **plain,
    }
    return {name: "" if value is None else str(value) for name, value in found.items()}


def _show(ask: Ask, values: Mapping[str, str], *, row: Any = None, problem: BadInput | None = None) -> Response:
    with ask.use.db.read() as conn:
        known = [entry.name for entry in datasets.list_page(conn, ask.viewer.project_id, after=None, limit=DATASETS)]
    return ask.page(
        "schedules/form.html",
        status=200 if problem is None else 400,
        values=values,
        row=row,
        problem=problem,
        datasets=known,
        presets=PRESETS,
        units=tuple(UNITS),
        overlaps=[(name, OVERLAP_WORDS[name]) for name in OVERLAPS],
        catch_ups=[(name, CATCH_UP_WORDS[name]) for name in CATCH_UPS],
        defaults=Options().to_mapping(),
    )
