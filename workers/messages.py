"""Names of tasks and queues, and the messages between orchestrator and workers: ids, nothing else.

A message is a wake-up; the rows are the truth. Losing every message loses time, not work.
"""

from __future__ import annotations

import re

GENERATE = "stagebeam.generate"
"""Task: `{"call_ids": [int, ...]}`; runs GENERATE calls of one model."""
JUDGE = "stagebeam.judge"
"""Task: `{"call_ids": [int, ...]}`; runs COMPARE, CHECK and SCORE calls of one model."""
ADVANCE = "stagebeam.advance"
"""Task: `{"query_ids": [int, ...]}`; plans the queries again. Runs in the orchestrator."""

ADVANCE_QUEUE = "stagebeam.advance"

PRIORITIES = {"interactive": 0, "batch": 6, "background": 9}
"""Job priority to message priority; on the Redis transport 0 is the most urgent."""


def calls_queue(model: str) -> str:
    """The shared queue of all workers that run `model`."""
    return f"stagebeam.calls.{_slug(model)}"


def direct_queue(worker_id: str) -> str:
    """The queue of one worker: calls whose image and prefix it still holds."""
    return f"stagebeam.worker.{_slug(worker_id)}"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
