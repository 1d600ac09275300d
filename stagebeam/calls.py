"""Every request as data: what is sent, and what its answer becomes. Both clients send these, and do nothing else."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from stagebeam.records import Answer, Job

Out = TypeVar("Out")
Image = str | bytes | Path
"""An address or data URI, encoded bytes, or a file."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Out]):
    """One request."""

    method: str
    path: str
    parse: Callable[[Any], Out]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    timeout_s: float | None = None


def job(job_id: str) -> Call[Job]:
    """One job."""
    return Call("GET", job_path(job_id), Job.of)


def jobs(limit: int, status: Sequence[str], name: str | None) -> Call[list[Job]]:
    """Jobs of the project, newest first."""
    params: dict[str, Any] = {"limit": limit, "status": list(status)}
    if name:
        params["name"] = name
    return Call("GET", "/api/jobs", lambda page: [Job.of(item) for item in page["data"]], params)


def action(job_id: str, verb: str, reason: str, **more: Any) -> Call[Job]:
    """`verb` is cancel, pause, resume or retry."""
    body = {"reason": reason, **more} if reason else more
    return Call("POST", f"{job_path(job_id)}/{verb}", Job.of, json=body or None)


def cancel(job_id: str, reason: str, *, now: bool) -> Call[Job]:
    """Nothing new starts; with `now` what runs is given up too."""
    return action(job_id, "cancel", reason, now=True) if now else action(job_id, "cancel", reason)


def clone(job_id: str, changes: Mapping[str, Any]) -> Call[Job]:
    """The same input again, with changes."""
    return Call("POST", f"{job_path(job_id)}/clone", Job.of, json=dict(changes))


def submit(file_id: str, options: Mapping[str, Any]) -> Call[Job]:
    """A job over an uploaded file."""
    return Call("POST", "/api/jobs", Job.of, json={"file_id": file_id, **options})


def plan(file_id: str, options: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """What such a job would come to."""
    return Call("POST", "/api/jobs", dict, {"dry_run": "true"}, {"file_id": file_id, **options})


def trace(query: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """The trace of a query document."""
    return Call("GET", f"/api/queries/{query['id']}/trace", lambda found: dict(found["trace"]))


def find(job_id: str, custom_id: str) -> Call[list[dict[str, Any]]]:
    """The query of this name, if there is one."""
    return Call("GET", f"{job_path(job_id)}/queries", lambda page: list(page["data"]), {"custom_id": custom_id})


def ask(
    question: str, images: Sequence[Image], model: str, search: Mapping[str, Any], timeout_s: float
) -> Call[Answer]:
    """One question now."""
    content = [{"type": "image_url", "image_url": {"url": image_url(image)}} for image in images]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    body = {"model": model or "default", "messages": messages, "search": dict(search)}
    return Call("POST", "/v1/chat/completions", Answer.of, json=body, timeout_s=timeout_s)


def image_url(image: Image) -> str:
    """An image as the text that chat messages hold. Raises OSError when a file cannot be read."""
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:", "blob:", "object:")):
        return image
    kind = "application/octet-stream"
    if isinstance(image, bytes):
        data = image
    else:
        path = Path(image)
        data = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or kind
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def job_path(job_id: str) -> str:
    """Where a job is found."""
    return f"/api/jobs/{quote(job_id, safe='')}"


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in options.items() if value is not None}
