"""The peer: the same search as a plain Celery canvas, results in Redis. Stage after stage, a chord each.

Started by `throughput.py` as `celery -A benchmarks.canvas worker`; the broker comes from CANVAS_BROKER.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chain, chord

STAGES = ("summary", "caption", "reasoning", "conclusion")

app = Celery("canvas", broker=os.environ.get("CANVAS_BROKER"), backend=os.environ.get("CANVAS_BROKER"))
app.conf.update(task_serializer="json", accept_content=["json"], worker_prefetch_multiplier=4, result_expires=600)


@app.task(name="canvas.generate")  # type: ignore[untyped-decorator]
def generate(path: list[str], question: int, stage: str, index: int) -> dict[str, Any]:
    """One candidate, at no cost."""
    return {"path": path, "text": f"<{stage.upper()}>{question} {index}</{stage.upper()}>"}


@app.task(name="canvas.select")  # type: ignore[untyped-decorator]
def select(candidates: list[dict[str, Any]], stage: str) -> list[str]:
    """The judge, at no cost: the longest text wins; the path grows by it."""
    best = max(candidates, key=lambda candidate: len(candidate["text"]))
    return [*best["path"], best["text"]]


def search(question: int, candidates: int) -> Any:
    """The canvas of one query: four chords in a chain."""
    steps = []
    for place, stage in enumerate(STAGES):
        header = [
            generate.s([], question, stage, index) if place == 0 else generate.s(question, stage, index)
            for index in range(candidates)
        ]
        steps.append(chord(header, select.s(stage)))
    return chain(*steps)
