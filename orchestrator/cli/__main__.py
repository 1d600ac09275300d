"""`python -m orchestrator.cli`: how one process of stagebeam starts another."""

from __future__ import annotations

from orchestrator.cli import main

if __name__ == "__main__":
    main()
