"""What all rows of a run depend on: project, model and its revision, and the version of the method."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import orjson
from sqlalchemy import Connection

from orchestrator.models import model_folder
from reasoning.policy import Judge, Policy, PromptStyle
from reasoning.prompts import check_prompt, compare_prompt, policy_prompt
from reasoning.records import Query
from reasoning.stages import Stage
from storage import fleet

METHOD_VERSION = 1
"""Raised when the same policy, query and outcomes may give another answer than before, so that stored results
of earlier versions are not used. The wording of prompts is seen without that."""

READ_WHOLE_BYTES = 16 * 2**20
"""Files of a model folder up to this size are told apart by content, larger ones by size and time of change."""

UNKNOWN = "unknown"


def salt(project_id: str, model: str, policy: Policy, revisions: dict[str, str]) -> str:
    """Digest of what the content keys of all rows of a run have in common. `revisions` are those of its models."""
    parts: list[Any] = [project_id, model, sorted(revisions.items()), METHOD_VERSION, wording()]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def revisions(conn: Connection, model: str, policy: Policy) -> dict[str, str]:
    """The revision of the model that answers and of the one that judges."""
    names = {model, policy.judge_model or model}
    return {name: folder_revision(name) or fleet.revision(conn, name) or UNKNOWN for name in sorted(names)}


@lru_cache(maxsize=1)
def wording() -> str:
    """Digest of all prompts over one sample question."""
    query = Query(custom_id="sample", question="What is shown?", images=("0" * 64,), choices=("a cat", "a dog"))
    kept = dict.fromkeys(Stage, "text")
    prompts = [check_prompt(query, "caption", "reasoning")]
    for style in get_args(PromptStyle):
        prompts.append(policy_prompt(query, style, "<SUMMARY>"))
        prompts += [
            compare_prompt(query, style, judge, stage.value, kept, ("one", "two"))
            for judge in get_args(Judge)
            for stage in Stage
        ]
    return hashlib.sha256("".join(prompt.digest for prompt in prompts).encode()).hexdigest()


def folder_revision(model: str) -> str | None:
    """Digest of a model folder on this machine; None for a model that is none, or of which nothing is here."""
    folder = model_folder(model)
    if folder is None:
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        return None
    facts = [_file_facts(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _file_facts(path: Path, size: int, changed_ns: int) -> tuple[str, int, str]:
    if size > READ_WHOLE_BYTES:
        return path.name, size, str(changed_ns)
    return path.name, size, hashlib.sha256(path.read_bytes()).hexdigest()
