"""The command that asks one question again: same images, policy, seed and name, so the same candidates are drawn."""

from __future__ import annotations

import json
import shlex
from typing import Any

from reasoning.policy import Policy

LONGEST = 16_000
"""Characters of a command that can still be pasted; a longer question is asked again by a file."""


def command(custom_id: str, body: dict[str, Any], policy: Policy, model: str) -> str | None:
    """For a shell; images are named by content.

    None for what no line can say (a refused line, earlier turns) and for what is too long to paste.
    """
    if "question" not in body or body.get("context"):
        return None
    line = {"custom_id": custom_id, "question": body["question"]}
    line |= {"images": [f"blob:{sha}" for sha in body["images"]]} if body.get("images") else {}
    line |= {name: body[name] for name in ("choices", "answer") if body.get(name)}
    line["policy"] = policy.to_mapping()
    text = f"echo {shlex.quote(json.dumps(line))} | stagebeam job submit - --model {shlex.quote(model)} --wait"
    return text if len(text) <= LONGEST else None
