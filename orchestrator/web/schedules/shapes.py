"""How slots and schedules look: which of the known shapes stands for which state."""

from __future__ import annotations

from typing import Any

from orchestrator.schedules.documents import state_of

SLOT_SHAPES = {
    "pending": "waiting",
    "fired": "running",
    "skipped": "pruned",
    "missed": "late",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
SLOT_WORDS = {"pending": "waits", "fired": "runs"}
STATE_SHAPES = {"active": "ok", "paused": "paused", "overdue": "late", "ended": "stopped"}


def tick(slot: Any) -> dict[str, Any]:
    """A slot as one small mark with its story for the pointer."""
    word = SLOT_WORDS.get(slot.status, slot.status)
    return {
        "id": slot.id,
        "shape": SLOT_SHAPES[slot.status],
        "word": word,
        "due_at": slot.due_at,
        "note": slot.note or "",
    }


def state(row: Any, now: float) -> tuple[str, str]:
    """Shape and word of a schedule's state."""
    word = state_of(row, now)
    return STATE_SHAPES[word], word
