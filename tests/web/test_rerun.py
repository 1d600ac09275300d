"""The command that asks a question again says the same question under the same policy."""

from __future__ import annotations

import json
import shlex

from orchestrator.web.rerun import LONGEST, command
from reasoning.policy import Policy

POLICY = Policy(candidates=3, seed=11)
BODY = {"question": "Which is 'larger'; $(rm -rf)?", "images": ["ab" * 32], "choices": ["a", "b"], "context": []}


def test_it_is_one_line_with_name_images_by_content_and_the_whole_policy() -> None:
    text = command("q 1", BODY, POLICY, "my model")
    assert text is not None
    echo, line, *rest = shlex.split(text)
    assert (echo, rest) == ("echo", ["|", "stagebeam", "job", "submit", "-", "--model", "my model", "--wait"])
    said = json.loads(line)
    assert said.pop("policy") == POLICY.to_mapping()
    images = ["blob:" + "ab" * 32]
    assert said == {"custom_id": "q 1", "question": BODY["question"], "images": images, "choices": ["a", "b"]}


def test_there_is_none_for_what_a_line_cannot_say_and_for_what_is_too_long() -> None:
    assert command("q", {}, POLICY, "m") is None
    assert command("q", {**BODY, "question": "x" * LONGEST}, POLICY, "m") is None
    assert command("q", {**BODY, "context": [{"role": "user", "text": "earlier"}]}, POLICY, "m") is None
