"""The command that asks one question again: same images, policy, seed and name, so the same candidates are drawn."""

from __future__ import annotations

import json
import shlex
from typing import Any

from reasoning.policy import Policy


def command(custom_id: str, body: dict[str, Any], policy: Policy, model: str) -> str | None:
    """For a shell; images are named by content. None for what no line can say: a refused line, or earlier turns."""
    if "question" not in body or body.get("context"):
        return None
    line = {"custom_id": custom_id, "question": body["question"]}
    line |= {"images": [f"blob:{sha}" for sha in body["images"]]} if body.get("images") else {}
    line |= {name: body[name] for name in ("choices", "answer") if body.get(name)}
    line["policy"] = policy.to_mapping()
    return f"echo {shlex.quote(json.dumps(line))} | stagebeam job submit - --model {shlex.quote(model)} --wait"
