"""From data to a model that thinks in four stages: scenes, structured data, SFT, rejection sampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def run(
    config_path: Path,
    *,
    resume: bool = True,
    progress: Callable[[int, int, float | None], None] = lambda step, steps, loss: None,
) -> Path:
    """Train as a TOML file says and return the folder of the trained model.

    `progress` is told the step, the last step and the loss, if it is known, at every log step.

    Raises:
        BadInput: the configuration, a row or an image is not usable; named before a step is spent.
    """
    from training.sft.config import TrainConfig

    config = TrainConfig.load(config_path)
    from training.sft.run import run as train

    return train(config, resume=resume, progress=progress)


def check(config_path: Path) -> dict[str, int]:
    """Check a configuration with its rows and images, without loading a model; counts of the rows.

    Raises:
        BadInput: as `run` does.
    """
    from training.data.conversations import read
    from training.sft.config import TrainConfig

    config = TrainConfig.load(config_path)
    rows, judge = (read(files, config.images) for files in (config.rows, config.judge_rows))
    return {"rows": len(rows), "judge_rows": len(judge)}
