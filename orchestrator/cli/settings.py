"""`stagebeam settings`: what is set, and to what."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, listing

app = verbs("What is set, and to what.")


@app.command()
def show(as_json: AsJson = False) -> None:
    """List every setting with its value and where it comes from. Secrets are not shown."""
    from orchestrator.cli.terminal.door import settings_with
    from storage.settings import PREFIX

    current = settings_with()
    rows = [
        {
            "variable": PREFIX + name.upper(),
            "value": _shown(getattr(current, name)),
            "source": "environment" if name in current.model_fields_set else "default",
        }
        for name in type(current).model_fields
    ]
    listing(rows, ("variable", "value", "source"), as_json=as_json)


def _shown(value: Any) -> Any:
    from pathlib import Path

    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value
