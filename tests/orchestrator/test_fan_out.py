"""Into how many calls a stage goes: several while workers wait for work, one while they have plenty."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.advance import UNKNOWN, Fleet, advance
from orchestrator.service import fleet_of
from storage import transitions
from storage.database import Database
from storage.objects import open_objects
from storage.settings import Settings
from tests.orchestrator.driving import Stack


def row(name: str, held: int | None, model: str = "m") -> Any:
    """A worker with 8 slots as `storage.fleet.live` tells of it; before its first beat it told nothing."""
    return SimpleNamespace(id=name, model=model, slots=8, stats=None if held is None else {"in_hand": held})


@pytest.mark.parametrize(
    ("workers", "busy"),
    [
        ([], set()),
        ([row("a", None)], set()),
        ([row("a", 3)], set()),
        ([row("a", 4)], {"m"}),
        ([row("a", 16), row("b", 0)], {"m"}),
        ([row("a", 4), row("b", 3)], set()),
        ([row("a", 8), row("b", 0, "other")], {"m"}),
    ],
)
def test_a_model_is_busy_when_half_of_its_slots_are_taken(workers: list[Any], busy: set[str]) -> None:
    assert fleet_of(workers).busy == busy


def test_only_workers_with_room_are_preferred_and_only_where_there_is_a_choice() -> None:
    assert fleet_of([row("a", 8), row("b", 7)]).roomy == {"b": "m"}
    assert fleet_of([row("b", 7)]).roomy == {}


@pytest.mark.parametrize(
    ("idle", "fleet", "calls"),
    [(True, UNKNOWN, 3), (False, UNKNOWN, 1), (True, Fleet(busy=frozenset({"scripted"})), 1)],
)
def test_a_stage_goes_out_whole_while_its_model_is_busy(
    database: Database, settings: Settings, idle: bool, fleet: Fleet, calls: int
) -> None:
    stack = Stack(database, open_objects(settings))
    job_id = stack.submit("job_a", 1, policy={"candidates": 3})
    (query,) = stack.queries(job_id)
    with database.write() as conn:
        transitions.move_queries(conn, [transitions.QueryMove(query.id, job_id, "running", {})], stack.now)
    advance(database, [query.id], stack.now, idle=idle, fleet=fleet)
    assert len(stack.calls(job_id)) == calls


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return Settings(data_dir=tmp_path)
