"""Named datasets: the list and the form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from starlette.responses import Response

from orchestrator.datasets.spec import FORMATS, PARTS
from orchestrator.schedules.define import Author, DatasetDefinition, put_dataset
from orchestrator.schedules.sources import Kind, SourceSettings, check_reach
from orchestrator.service import new_id
from orchestrator.web.pages import Ask
from reasoning.errors import BadInput
from storage import datasets

PAGE = 200
POLICY_NUMBERS = ("candidates", "seed")
KIND_WORDS = {
    "path": "file or folder",
    "glob": "files by a pattern",
    "prefix": "object-store prefix",
    "sql": "SQL query",
}


def show(ask: Ask) -> Response:
    """Datasets by name."""
    with ask.use.db.read() as conn:
        rows = datasets.list_page(conn, ask.viewer.project_id, after=ask.query.get("after"), limit=PAGE)
    following = rows[PAGE - 1].name if len(rows) > PAGE else None
    return ask.page("schedules/datasets.html", rows=rows[:PAGE], following=following, done=ask.query.get("done"))


def form(ask: Ask) -> Response:
    """The form, empty or filled with a dataset that is to be changed."""
    values: dict[str, str] = {"kind": "path", "format": "auto"}
    name = ask.query.get("name")
    if name:
        with ask.use.db.read() as conn:
            row = datasets.named(conn, ask.viewer.project_id, name)
        values = _values_of(row) if row is not None else values
    return _show(ask, values)


def save(ask: Ask) -> Response:
    """Make or change the dataset."""
    values = {name: ask.field(name) for name in ask.form}
    try:
        definition = DatasetDefinition.from_mapping(_body(values))
        source = SourceSettings.from_mapping(definition.source)
        check_reach(source, ask.use.settings, admin=ask.viewer.may("admin"))
        author = Author(ask.viewer.project_id, ask.viewer.actor)
        with ask.use.db.write() as conn:
            put_dataset(conn, definition, author, ask.use.now(), new_id)
    except BadInput as error:
        return _show(ask, values, problem=error)
    return ask.go("datasets", done=definition.name)


def _body(values: Mapping[str, str]) -> dict[str, Any]:
    source = {name: values[name] for name in ("kind", "address", "format", "split", "query") if values.get(name)}
    policy: dict[str, Any] = {"strategy": values["strategy"]} if values.get("strategy") else {}
    for name in POLICY_NUMBERS:
        if values.get(name):
            if not values[name].isdigit():
                raise BadInput(f"{name} must be a whole number", code="invalid_type", field=name)
            policy[name] = int(values[name])
    return {
        "name": values.get("name"),
        "source": source,
        "columns": {part: values[f"column.{part}"] for part in PARTS if values.get(f"column.{part}")},
        "question": values.get("question") or None,
        "model": values.get("model", ""),
        "policy": policy,
        "identity": [word for word in values.get("identity", "").replace(",", " ").split() if word],
    }


def _values_of(row: Any) -> dict[str, str]:
    columns = row.mapping.get("columns") or {}
    found = {
        **row.source,
        "name": row.name,
        "question": row.mapping.get("question"),
        "model": row.model,
        "identity": ", ".join(row.identity),
        **{name: row.policy.get(name) for name in ("strategy", *POLICY_NUMBERS)},
        **{f"column.{part}": value for part, value in columns.items() if isinstance(value, str)},
    }
    return {name: "" if value is None else str(value) for name, value in found.items()}


def _show(ask: Ask, values: Mapping[str, str], *, problem: BadInput | None = None) -> Response:
    return ask.page(
        "schedules/dataset.html",
        status=200 if problem is None else 400,
        values=values,
        problem=problem,
        kinds=[(kind, KIND_WORDS[kind]) for kind in get_args(Kind)],
        formats=FORMATS,
        parts=PARTS,
    )
