"""Submit: a request becomes a job row that waits for validation. A dry run says what it would come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, insert

from orchestrator.intake.ingest import open_resolver, read_chunks, rules_for
from orchestrator.intake.keeper import BlobKeeper, Keeper
from orchestrator.intake.records import LineError
from orchestrator.intake.resolve import Verified
from orchestrator.intake.survey import Report, refusals, survey
from orchestrator.intake.validate import LineRules
from orchestrator.models import model_profile
from reasoning.errors import BadInput, nearest
from reasoning.policy import Policy
from reasoning.strategies import strategy_named
from storage import files
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings
from storage.tables import Job, JobCounters
from workers.messages import PRIORITIES

ON_BAD_LINE = ("fail", "skip")
LINE_FORMATS = ("native", "openai")
SOURCES = ("api", "batch", "chat", "schedule")

MAX_NAME = 200
"""Characters of a job's name."""
MAX_ATTRIBUTES_BYTES = 16 * 1024
"""Of the submitter's key-value pairs as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is asked for; field names are those of the JSON API where it has them."""

    project_id: str
    input_file_id: str | None
    """None when the caller inserts the queries in the same transaction."""
    model: str = ""
    """Empty means the model of the settings."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Policy fields that differ from the model's and the general defaults."""
    name: str = ""
    priority: str = "batch"
    weight: float = 1.0
    on_bad_line: Literal["fail", "skip"] = "fail"
    line_format: Literal["native", "openai"] = "native"
    completion_window_s: float | None = None
    """Seconds from now until the job runs out of time; None means never."""
    attributes: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    """Settings of the submission that are not policy. `chat` holds fields of `ChatRules`."""
    source: str = "api"
    source_ref: str | None = None


def submit(conn: Connection, request: JobRequest, settings: Settings, now: float, ids: Callable[[str], str]) -> str:
    """Write the job and its counters, status `validating`, and return its id. Ingest does the rest.

    `ids` makes an id from a prefix, `now` is seconds since the epoch.

    Raises:
        BadInput: unknown or unusable field, policy or file (`file_not_found`).
    """
    policy = effective_policy(request, settings)
    _check(request)
    if request.input_file_id is not None:
        _input_file(conn, request, now)
    job_id = ids("job")
    window = request.completion_window_s
    values = {
        "id": job_id,
        "project_id": request.project_id,
        "name": request.name,
        "status": "validating",
        "model": request.model or settings.model,
        "policy": policy.to_mapping(),
        "policy_digest": policy.digest,
        "priority": request.priority,
        "weight": request.weight,
        "source": request.source,
        "source_ref": request.source_ref,
        "line_format": request.line_format,
        "on_bad_line": request.on_bad_line,
        "input_file_id": request.input_file_id,
        "completion_window_s": window,
        "expires_at": None if window is None else now + window,
        "attributes": dict(request.attributes) if request.attributes else None,
        "options": _options(request, settings),
        "created_at": now,
    }
    conn.execute(insert(Job.__table__).values(values))
    conn.execute(insert(JobCounters.__table__).values(job_id=job_id))
    return job_id


def _options(request: JobRequest, settings: Settings) -> dict[str, Any] | None:
    options = dict(request.options or {})
    if settings.webhook_url and request.source != "chat":
        options.setdefault("webhook", {"url": settings.webhook_url})
    return options or None


def effective_policy(request: JobRequest, settings: Settings) -> Policy:
    """General defaults, changed by the model's profile, changed by the request. Raises BadInput."""
    profile = model_profile(request.model or settings.model)
    policy = Policy.from_mapping(profile.policy).with_overrides(request.policy)
    strategy_named(policy.strategy)
    return policy


def check(
    db: Database, objects: ObjectStore, request: JobRequest, settings: Settings, now: Callable[[], float]
) -> Report:
    """Dry run over the uploaded input file: counts, errors, shape and cost. Nothing is written.

    Raises:
        BadInput: the request itself cannot be used; what is wrong with the file stands in the report.
    """
    with db.read() as conn:
        key = _input_file(conn, request, now()).object_key
    with closing(objects.open(key)) as stream:
        return check_chunks(
            read_chunks(stream), request, settings, BlobKeeper(db, objects, request.project_id, now, dry=True)
        )


def line_errors(
    db: Database, objects: ObjectStore, request: JobRequest, settings: Settings, now: Callable[[], float]
) -> Iterator[LineError]:
    """Everything that is wrong with the uploaded input file, in line order, however much it is. Nothing is written.

    Raises:
        BadInput: the request itself cannot be used; at once, not while the errors are read.
    """
    policy = effective_policy(request, settings)
    _check(request)
    with db.read() as conn:
        key = _input_file(conn, request, now()).object_key
    rules = rules_for(request.line_format, policy, request.options, settings)
    return _errors_in(objects, key, rules, BlobKeeper(db, objects, request.project_id, now, dry=True), settings)


def _errors_in(
    objects: ObjectStore, key: str, rules: LineRules, keeper: Keeper, settings: Settings
) -> Iterator[LineError]:
    with closing(objects.open(key)) as stream, open_resolver(keeper, settings, Verified()) as resolver:
        yield from refusals(read_chunks(stream), rules, resolver)


def check_chunks(chunks: Iterable[bytes], request: JobRequest, settings: Settings, keeper: Keeper) -> Report:
    """Dry run over bytes that are at hand. Raises BadInput on the request itself."""
    policy = effective_policy(request, settings)
    _check(request)
    rules = rules_for(request.line_format, policy, request.options, settings)
    with open_resolver(keeper, settings, Verified()) as resolver:
        return survey(chunks, rules, resolver)


def _check(request: JobRequest) -> None:
    for name, known in (
        ("priority", tuple(PRIORITIES)),
        ("on_bad_line", ON_BAD_LINE),
        ("line_format", LINE_FORMATS),
        ("source", SOURCES),
    ):
        value = getattr(request, name)
        if value not in known:
            hint = nearest(str(value), known)
            raise BadInput(
                f'{name} is "{value}".{hint} Use one of: {", ".join(known)}.', code="invalid_value", field=name
            )
    if len(request.name) > MAX_NAME or not request.name.isprintable():
        raise BadInput(f"name must be {MAX_NAME} printable characters at most.", code="invalid_value", field="name")
    if not 0 < request.weight <= 1000:
        raise BadInput("weight must be above 0 and up to 1000.", code="invalid_value", field="weight")
    if request.completion_window_s is not None and not 0 < request.completion_window_s < float("inf"):
        raise BadInput(
            "completion_window_s must be a positive number of seconds.",
            code="invalid_value",
            field="completion_window_s",
        )
    try:
        size = len(orjson.dumps(dict(request.attributes or {})))
    except TypeError:
        size = MAX_ATTRIBUTES_BYTES + 1
    if size > MAX_ATTRIBUTES_BYTES:
        raise BadInput(
            f"attributes must be plain JSON of {MAX_ATTRIBUTES_BYTES} bytes at most.",
            code="invalid_value",
            field="attributes",
        )


def _input_file(conn: Connection, request: JobRequest, now: float) -> Any:
    row = files.get(conn, request.project_id, request.input_file_id or "")
    if row is None or (row.expires_at is not None and row.expires_at <= now):
        raise BadInput(
            f'there is no file "{request.input_file_id}"; upload the input first.',
            code="file_not_found",
            field="input_file_id",
        )
    return row
