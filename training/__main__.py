"""`python -m training [CONFIG]`: train as a TOML file says, or the demo model when none is named."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reasoning.errors import StagebeamError


def main() -> int:
    """Parse the arguments and train; 0 when the model stands, 2 when the input must be changed."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="TOML file of a run; without it the demo model is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the demo run")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves them as they are")
    parser.add_argument("--no-resume", action="store_true", help="begin anew, whatever checkpoints there are")
    arguments = parser.parse_args()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    try:
        folder = _train(arguments)
    except StagebeamError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command's own words
        return 2
    print(folder)  # noqa: T201 - the command's result
    return 0


def _train(arguments: argparse.Namespace) -> Path:
    resume = not arguments.no_resume
    if arguments.config is not None:
        from training import run

        return run(arguments.config, resume=resume, progress=_report)
    from training.small.recipe import rebuild

    return rebuild(arguments.out, resume=resume)


def _report(step: int, steps: int, loss: float | None) -> None:
    known = "" if loss is None else f"  loss {loss:.4f}"
    print(f"step {step} of {steps}{known}", file=sys.stderr)  # noqa: T201 - progress on a terminal


if __name__ == "__main__":
    sys.exit(main())
