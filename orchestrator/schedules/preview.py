"""What would happen: at a tick, and in a run over a dataset as it is now. Nothing is written but images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from orchestrator.datasets.packing import jsonl
from orchestrator.intake.chunks import in_chunks
from orchestrator.intake.ingest import open_resolver, rules_for
from orchestrator.intake.keeper import Keeper
from orchestrator.intake.pack import PackLimits, pack
from orchestrator.intake.pictures import Limits
from orchestrator.intake.records import AcceptedLine, LineError
from orchestrator.intake.resolve import ImageResolver, Verified
from orchestrator.intake.reuse import Reuse
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import validate
from orchestrator.schedules.due import Decision, Plan, slots_due
from orchestrator.schedules.sources import Opened
from reasoning.cost import cost_of
from reasoning.errors import BadInput
from reasoning.policy import Policy
from storage import reuse
from storage.database import Database
from storage.settings import Settings

ERRORS_SHOWN = 20


def foresee_tick(plan: Plan, cursor_at: float, at: float) -> Decision:
    """What the scheduler would decide at `at`, had it not run since the cursor."""
    return slots_due(plan, cursor_at, at)


@dataclass(slots=True)
class Foreseen:
    """What a run would come to."""

    rows: int = 0
    reused: int = 0
    computed: int = 0
    refused: int = 0
    errors: tuple[LineError, ...] = ()

    def to_json(self, policy: Policy) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "reused": self.reused,
            "computed": self.computed,
            "refused": self.refused,
            "errors": [error.to_json() for error in self.errors],
            "cost_at_most": cost_of(policy, self.computed).to_json(),
        }


def foresee_run(
    db: Database, keeper: Keeper, settings: Settings, opened: Opened, salt: str, policy: Policy
) -> Foreseen:
    """Read a whole source and look up which of its rows have a stored result; `keeper` stores nothing.

    Raises as reading a source does.
    """
    images = Limits(settings.max_image_bytes, settings.max_image_pixels)
    limits = PackLimits(max_line_bytes=settings.max_line_bytes, max_bytes=settings.max_upload_bytes, images=images)

    def nothing_sent(_sha256: str, _data: bytes, _media_type: str) -> None:
        return

    chunks = pack(
        jsonl(opened.lines, keeper.known, nothing_sent, images), opened.roots, keeper.known, nothing_sent, limits
    )
    keys = Reuse(salt, policy, use=True)
    found = Foreseen()
    with open_resolver(keeper, settings, Verified()) as resolver, SeenIds() as seen:
        lines = validate(chunks, rules_for("native", policy, None, settings), seen.first_use)
        for group in in_chunks(lines):
            _count(db, found, [line for _, line in group], keys, resolver)
    return found


def _count(db: Database, found: Foreseen, lines: Sequence[Any], keys: Reuse, resolver: ImageResolver) -> None:
    wanted = []
    for line in lines:
        found.rows += 1
        hashes = list(_hashes(line, resolver)) if isinstance(line, AcceptedLine) else [None]
        if isinstance(line, AcceptedLine) and None not in hashes:
            wanted.append(keys.key(line, [sha256 for sha256 in hashes if sha256]))
            continue
        found.refused += 1
        if not isinstance(line, AcceptedLine):
            found.errors = (*found.errors, *line.errors)[:ERRORS_SHOWN]
    with db.read() as conn:
        known = _known(conn, wanted)
    found.reused += known
    found.computed += len(wanted) - known


def _known(conn: Connection, keys: Sequence[str]) -> int:
    return len(reuse.known(conn, keys)) if keys else 0


def _hashes(line: AcceptedLine, resolver: ImageResolver) -> Iterator[str | None]:
    """Content hashes of a line's images. What was packed just now is named by its hash and need not be stored."""
    for ref in line.images:
        if ref.kind == "blob":
            yield ref.value
        else:
            outcome = resolver.resolve([ref])[ref]
            yield None if isinstance(outcome, BadInput) else outcome
