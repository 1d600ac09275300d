"""Training metrics as JSON lines, one per log step: what a script or a plot reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.data.journal import Journal


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends every log of the trainer to a file and tells `progress` how far the run is."""

    def __init__(
        self, path: Path, progress: Callable[[int, int, float | None], None], now: Callable[[], float] = time.time
    ) -> None:
        self._journal, self._progress, self._now = Journal(path), progress, now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        """Called by the trainer."""
        if not state.is_world_process_zero or not logs:
            return
        self._journal.append({"step": state.global_step, "time": self._now(), **logs})
        loss = logs.get("loss")
        self._progress(state.global_step, state.max_steps, float(loss) if loss is not None else None)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()
