"""Creating a batch: its request checked, the model found, and a repeated request recognised (sections 9.3, 9.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.api.errors import NotFound
from orchestrator.api.openai.uploads import ANCHOR, MAX_EXPIRY_S, MIN_EXPIRY_S
from orchestrator.intake.fields import told_at
from orchestrator.intake.ingest import read_chunks
from orchestrator.intake.lines import split_lines
from orchestrator.intake.unpack import unpack
from orchestrator.submit import JobRequest
from reasoning.errors import BadInput
from storage.objects import ObjectStore
from storage.settings import Settings

_UNITS_S = {"m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
MAX_WINDOW_S = 365 * 86400
EXTENSIONS = ("search", "name", "priority", "weight", "on_bad_line", "webhook")
"""Fields beyond the wire; a batch created with one of them shows the extra fields."""

Key = Annotated[str, StringConstraints(max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]


class Expiry(BaseModel):
    """When a file goes."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"] = Field(description=f"`{ANCHOR}` of the output file.")
    seconds: int = Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)


class Webhook(BaseModel):
    """Who is told when the batch ends."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2000, pattern="^https?://")
    secret: str | None = Field(default=None, pattern="^whsec_[A-Za-z0-9+/=]{8,200}$", description="Signs the message.")


class NewBatch(BaseModel):
    """A batch over an uploaded file. What comes after `output_expires_after` is beyond the OpenAI API."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str = Field(max_length=100)
    endpoint: Literal["/v1/chat/completions"]
    completion_window: str = Field(max_length=10, description="`24h`, or another number of m, h or d.")
    metadata: dict[Key, Value] | None = Field(default=None, max_length=16)
    output_expires_after: Expiry | None = None
    search: dict[str, Any] | None = Field(default=None, description="Policy fields of all lines, and `trace`.")
    name: str = Field(default="", max_length=200)
    priority: Literal["interactive", "batch", "background"] = "batch"
    weight: float = Field(default=1.0, gt=0, le=1000)
    on_bad_line: Literal["fail", "skip"] = "fail"
    webhook: Webhook | None = None

    def request(self, project_id: str, model: str, source_ref: str | None) -> JobRequest:
        """The job that the batch is. Raises BadInput on a bad window or `search`."""
        search = dict(self.search or {})
        trace = search.pop("trace", False)
        if not isinstance(trace, bool):
            raise BadInput("search.trace must be true or false", code="invalid_type", field="search.trace")
        options: dict[str, Any] = {
            "completion_window": self.completion_window,
            "request": self.fingerprint(),
            "extended": bool(self.model_fields_set & set(EXTENSIONS)),
            "trace": trace,
        }
        if self.output_expires_after:
            options["output_expires_s"] = self.output_expires_after.seconds
        if self.webhook:
            options["webhook"] = self.webhook.model_dump()
        return JobRequest(
            project_id=project_id,
            input_file_id=self.input_file_id,
            model=model,
            policy=search,
            name=self.name,
            priority=self.priority,
            weight=self.weight,
            on_bad_line=self.on_bad_line,
            line_format="openai",
            completion_window_s=window_s(self.completion_window),
            attributes=self.metadata,
            options=options,
            source="batch",
            source_ref=source_ref,
        )

    def fingerprint(self) -> str:
        """Equal for requests that ask for the same."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS).decode()


@contextmanager
def named_as_sent() -> Iterator[None]:
    """What is wrong with a policy field is told of `search`, where the request has it."""
    try:
        yield
    except BadInput as error:
        if error.field is None or not error.field.startswith("policy."):
            raise
        at = f"search.{error.field.removeprefix('policy.')}"
        raise BadInput(told_at(error.message, error.field, at), code=error.code, field=at) from error


def window_s(window: str) -> float:
    """Seconds of a completion window such as `24h`. Raises BadInput."""
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise BadInput(
            f'completion_window is "{window}"; write "24h", or another number of m, h or d up to a year',
            code="invalid_value",
            field="completion_window",
        )
    return float(seconds)


def first_model(objects: ObjectStore, row: Any, settings: Settings) -> str | None:
    """The model that the first line of an input file names; None when it cannot be told. Validation says why then.

    Raises:
        NotFound: the bytes of the file are gone.
    """
    try:
        stream = objects.open(row.object_key)
    except FileNotFoundError:
        raise NotFound("file", row.id) from None
    with closing(stream):
        try:
            lines = split_lines(unpack(read_chunks(stream), settings.max_upload_bytes), settings.max_line_bytes)
            _, line = next(lines, (0, b""))
            model = orjson.loads(line)["body"]["model"] if isinstance(line, bytes) else None
        except (BadInput, orjson.JSONDecodeError, KeyError, TypeError):
            return None
    return model if isinstance(model, str) else None
