"""Ingest: the input file of a validating job becomes query rows.

One pass over the file, a chunk per transaction. `jobs.ingested_lines` moves in the same transaction as the
rows, and only from the value that this process saw: a kill between chunks loses nothing, and of two processes
at the same job one stops at its next chunk. A resumed ingest validates the file from its start again, because
uniqueness of `custom_id` depends on all lines, but looks at no image and writes no row twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import orjson
import structlog
from sqlalchemy import Row, select, update

from orchestrator.intake.chat import ChatRules
from orchestrator.intake.chunks import Chunk, ahead, in_chunks, resolve_chunk
from orchestrator.intake.fetch import Fetcher
from orchestrator.intake.fields import stand_in_id
from orchestrator.intake.keeper import BlobKeeper, Keeper
from orchestrator.intake.pictures import Limits
from orchestrator.intake.records import LineError, RefusedLine
from orchestrator.intake.resolve import ImageResolver, Verified
from orchestrator.intake.reuse import Reuse
from orchestrator.intake.rows import NewQuery, delete_queries, insert_queries
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import LineFormat, LineRules, validate
from orchestrator.limits import queue_overrun
from orchestrator.outbox import announce
from reasoning.errors import BadInput, InvariantBroken
from reasoning.policy import Policy
from storage import transitions
from storage.causes import caused
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings
from storage.tables import File, Job

log = structlog.get_logger()

READ_BYTES = 2**20

KEPT_ERRORS = 100
"""Errors kept with the job; all are counted."""

REMOVED_AT_ONCE = 5000

_JOBS = Job.__table__
_FILES = File.__table__

Outcome = Literal["running", "failed", "interrupted", "superseded"]


@dataclass(frozen=True, slots=True)
class IngestResult:
    """How an ingest ended.

    `interrupted`: `stop` asked for it, and the next call goes on. `superseded`: the job is not validating any
    more or another process ingests it.
    """

    outcome: Outcome
    lines: int = 0
    """Lines turned into rows by this call."""
    errors: int = 0
    """Errors of the whole job so far."""


class _Superseded(Exception):
    """The job row has moved on under us."""


def ingest(
    db: Database,
    objects: ObjectStore,
    settings: Settings,
    job_id: str,
    clock: Callable[[], float],
    *,
    stop: Callable[[], bool] = lambda: False,
    verified: Verified | None = None,
) -> IngestResult:
    """Validate the input of a job and insert its queries; then the job runs, or failed with its errors.

    `clock` gives seconds since the epoch, `stop` is asked between chunks, `verified` is what the process knows
    of images already.

    Raises:
        Transient: database or object store are away; calling again goes on where this call stopped.
    """
    with db.read() as conn:
        job = conn.execute(select(_JOBS).where(_JOBS.c.id == job_id)).one_or_none()
    if job is None or job.status != "validating":
        return IngestResult("superseded")
    work = _Ingest(db, job, clock)
    keeper = BlobKeeper(db, objects, job.project_id, clock)
    try:
        with (
            open_resolver(keeper, settings, verified or Verified()) as resolver,
            SeenIds() as seen,
            closing(_open(db, objects, job)) as stream,
        ):
            lines = validate(
                read_chunks(stream),
                rules_for(job.line_format, Policy.from_mapping(job.policy), job.options, settings),
                seen.first_use,
            )
            groups = ahead(in_chunks(lines, after_line=job.ingested_lines))
            with closing(groups), closing(ahead(resolve_chunk(group, resolver) for group in groups)) as chunks:
                for chunk in chunks:
                    if stop():
                        return work.result("interrupted")
                    work.write(chunk)
    except BadInput as error:
        work.refuse_file(error)
    except _Superseded:
        return work.result("superseded")
    return work.finish(stop)


class _Ingest:
    """The job's row as this process knows it, and the transactions that move it."""

    def __init__(self, db: Database, job: Row[Any], clock: Callable[[], float]) -> None:
        self._db = db
        self._job = job
        self._clock = clock
        self._reuse = Reuse.of(job)
        self._at: int = job.ingested_lines
        self._errors: list[dict[str, Any]] = list(job.errors or ())
        self._error_count: int = job.error_count
        self._file_refused = False
        self._lines = 0

    @property
    def _doomed(self) -> bool:
        """Whether the job will fail, so that further rows would only be removed again."""
        return self._file_refused or (self._error_count > 0 and self._job.on_bad_line != "skip")

    def write(self, chunk: Chunk) -> None:
        """One chunk in one transaction: rows, counters, errors and how far we are."""
        self._note([error for _, line in chunk.refused for error in line.errors])
        new = [] if self._doomed else list(_rows(chunk, self._reuse))
        with self._db.write() as conn:
            moved = conn.execute(
                update(_JOBS)
                .where(_JOBS.c.id == self._job.id, _JOBS.c.status == "validating", _JOBS.c.ingested_lines == self._at)
                .values(ingested_lines=chunk.last_line, errors=self._errors or None, error_count=self._error_count)
            )
            if moved.rowcount != 1:
                raise _Superseded
            if self._reuse:
                new = self._reuse.taken_over(conn, new)
            insert_queries(conn, self._job.id, new, self._clock())
            counts = Counter(query.status for query in new)
            transitions.add_counts(conn, self._job.id, {"total": len(new), **counts})
        self._at = chunk.last_line
        self._lines += len(new)

    def refuse_file(self, error: BadInput) -> None:
        """The input as a whole is unusable; the job fails whatever `on_bad_line` says."""
        self._file_refused = True
        self._note([LineError(error.line or 1, error.field, error.code, error.message)])

    def finish(self, stop: Callable[[], bool]) -> IngestResult:
        """The file is read: run the job, or remove its rows and fail it."""
        if not self._doomed:
            with self._db.read() as conn:
                overrun = queue_overrun(conn, self._job.id)
            if overrun is not None:
                self.refuse_file(overrun)
        if not self._doomed:
            return self.result("running" if self._move("running", "the input is valid") else "superseded")
        while True:
            if stop():
                return self.result("interrupted")
            with self._db.write() as conn:
                counts = delete_queries(conn, self._job.id, REMOVED_AT_ONCE)
                gone = {"total": -sum(counts.values()), **{name: -count for name, count in counts.items()}}
                transitions.add_counts(conn, self._job.id, gone)
            if not counts:
                break
        moved = self._move("failed", f"the input has {self._error_count} error{'' if self._error_count == 1 else 's'}")
        return self.result("failed" if moved else "superseded")

    def result(self, outcome: Outcome) -> IngestResult:
        log.info(
            "Ingest of a job's input ended or paused.",
            action=f"ingest.{outcome}",
            job_id=self._job.id,
            lines=self._lines,
            errors=self._error_count,
        )
        return IngestResult(outcome, self._lines, self._error_count)

    def _move(self, to: str, reason: str) -> bool:
        with self._db.write() as conn:
            moved = transitions.move_job(
                conn,
                self._job.id,
                to,
                self._clock(),
                reason=reason,
                errors=self._errors or None,
                error_count=self._error_count,
            )
            if moved and to == "failed":
                announce(conn, self._job, to, self._clock())
            return moved

    def _note(self, errors: Sequence[LineError]) -> None:
        self._error_count += len(errors)
        room = max(0, KEPT_ERRORS - len(self._errors))
        self._errors = self._errors + [error.to_json() for error in errors[:room]]


def open_resolver(keeper: Keeper, settings: Settings, verified: Verified) -> ImageResolver:
    """A resolver under the image settings."""
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    fetcher = Fetcher(max_bytes=settings.max_image_bytes) if settings.image_urls else None
    return ImageResolver(keeper, limits, verified, roots=settings.image_roots, fetcher=fetcher)


def rules_for(
    line_format: LineFormat, policy: Policy, options: Mapping[str, Any] | None, settings: Settings
) -> LineRules:
    """The rules for the lines of a job. `options["chat"]` may hold fields of `ChatRules`."""
    chat = (options or {}).get("chat") or {"one_model": line_format == "openai"}
    return LineRules(
        line_format=line_format,
        policy=policy,
        chat=ChatRules(**chat),
        max_line_bytes=settings.max_line_bytes,
        max_lines=settings.max_lines,
        max_bytes=settings.max_upload_bytes,
    )


def _open(db: Database, objects: ObjectStore, job: Row[Any]) -> BinaryIO:
    with db.read() as conn:
        key = conn.scalar(select(_FILES.c.object_key).where(_FILES.c.id == job.input_file_id))
    if key is None:
        raise InvariantBroken(f"job {job.id} is validating and has no input file")
    try:
        return objects.open(key)
    except FileNotFoundError as error:
        raise BadInput(
            "the input file was deleted before the job could read it; upload it again.", code="file_not_found"
        ) from error


def read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The rest of a stream, a piece at a time."""
    while chunk := stream.read(READ_BYTES):
        yield chunk


def _rows(chunk: Chunk, reuse: Reuse | None) -> Iterator[NewQuery]:
    for number, line, hashes in chunk.accepted:
        key = reuse.key(line, hashes) if reuse else None
        yield NewQuery(number, line.custom_id, orjson.dumps(line.body(hashes)).decode(), content_key=key)
    for number, refused in chunk.refused:
        yield _refused_row(number, refused)


def _refused_row(number: int, refused: RefusedLine) -> NewQuery:
    """A failed query for a bad line. It goes by its own name unless that is missing or another line's."""
    duplicate = any(error.code == "duplicate_custom_id" for error in refused.errors)
    own = None if duplicate else refused.custom_id
    errors = [error.to_json() for error in refused.errors]
    first = refused.errors[0]
    error = caused(
        {
            "code": first.code,
            "message": first.message,
            "stage": None,
            "attempts": 0,
            "retryable": False,
            "errors": errors,
        }
    )
    body: dict[str, Any] = {"images": [], "refused_custom_id": refused.custom_id}
    if refused.metadata:
        body["metadata"] = refused.metadata
    return NewQuery(
        number, own or stand_in_id(number), orjson.dumps(body).decode(), orjson.dumps(caused(error)).decode()
    )
