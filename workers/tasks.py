"""The two Celery tasks. A message names calls; the rows say what is to be done."""

from __future__ import annotations

from typing import Any

from celery import Celery

from workers import messages
from workers.pipeline import Pipeline

LOWEST_PRIORITY = max(messages.PRIORITIES.values())


def register_tasks(app: Celery, pipeline: Pipeline) -> None:
    """Make `stagebeam.generate` and `stagebeam.judge` run on the pipeline.

    A task returns, and its message is acknowledged, when every call of it is written, dropped or given back.
    """

    def run(self: Any, call_ids: list[int]) -> None:
        priority = (self.request.delivery_info or {}).get("priority")
        pipeline.run(self.name, call_ids, LOWEST_PRIORITY if priority is None else priority)

    for name in (messages.GENERATE, messages.JUDGE):
        app.task(run, name=name, bind=True)
