from __future__ import annotations

import base64
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy import text as sql

from orchestrator.intake import chunks as chunking
from orchestrator.intake.pictures import digest
from orchestrator.intake.rows import NewQuery, insert_queries
from reasoning.errors import InvariantBroken, Transient
from storage import blobs, queries, transitions
from storage.database import Database, open_database
from storage.tables import Blob, Job
from tests.intake.jobs_of import Stack, stack
from tests.intake.lines_of import chat, native, png, text


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Stack:
    found = stack(database, tmp_path)
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    return found


def lines(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [native(f"q-{number}", images=[f"{number % 3}.png"], **changes) for number in range(1, count + 1)]


def test_a_good_file_becomes_rows_and_the_job_runs(here: Stack):
    data_uri = "data:image/png;base64," + base64.b64encode(png(0)).decode()
    line = native(
        "q-2",
        images=[data_uri, "1.png"],
        choices=["a", "b"],
        answer="A",
        context=[{"role": "system", "text": "s"}],
        policy={"candidates": 2},
        metadata={"k": [1]},
    )
    job_id = here.submit(text(native("q-1", images=["0.png"]), line))
    result = here.ingest(job_id)
    assert (result.outcome, result.lines, result.errors) == ("running", 2, 0)
    job = here.job(job_id)
    assert (job.status, job.started_at, job.ingested_lines, job.errors, job.error_count) == (
        "running",
        20.0,
        2,
        None,
        0,
    )
    assert here.counts(job_id) == {"total": 2, "waiting": 2}
    bare = {"question": "How many?", "choices": [], "context": [], "policy": {}}
    assert here.rows(job_id) == [
        (1, "q-1", "waiting", {**bare, "images": [digest(png(0))]}, None),
        (
            2,
            "q-2",
            "waiting",
            {
                "question": "How many?",
                "images": [digest(png(0)), digest(png(1))],
                "choices": ["a", "b"],
                "context": [{"role": "system", "text": "s"}],
                "policy": {"candidates": 2},
                "answer": "A",
                "metadata": {"k": [1]},
            },
            None,
        ),
    ]
    with here.db.read() as conn:
        stored = {row.sha256: row for row in conn.execute(select(Blob.__table__))}
    assert set(stored) == {digest(png(0)), digest(png(1))}
    row = stored[digest(png(0))]
    assert blobs.read(here.objects, row) == png(0)
    assert (row.bytes, row.media_type, row.width, row.height) == (len(png(0)), "image/png", 4, 4)
    record = queries.to_record("q-2", here.rows(job_id)[1][3])
    assert record.images == (digest(png(0)), digest(png(1)))
    assert here.ingest(job_id).outcome == "superseded", "a job is ingested once"


def test_chat_lines_make_the_same_rows(here: Stack):
    messages = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "0.png"}}, {"type": "text", "text": "How many?"}],
        }
    ]
    job_id = here.submit(text(chat("q-1", messages=messages)), line_format="openai")
    assert here.ingest(job_id).outcome == "running"
    (row,) = here.rows(job_id)
    assert row[3]["images"] == [digest(png(0))]
    assert row[3]["wire"] == {"model": "m", "trace": False}


BAD = [
    b"{broken",
    native("q-1", images=["0.png"]),
    native("q-1", images=["0.png"]),
    native("q-4", images=["0.png", "none.png", "bad.png", "../secret.png"]),
    native(None),
    native("q-6", images=[{"error": {"code": "image_unreadable", "message": "locked"}}]),
    native("q-7", images=["blob:" + "e" * 64]),
    native("q-8", images=["2.png"]),
]
ERRORS = [
    (1, None, "invalid_json_line"),
    (3, "custom_id", "duplicate_custom_id"),
    (4, "images[1]", "image_missing"),
    (4, "images[2]", "image_unsupported_format"),
    (4, "images[3]", "image_outside_roots"),
    (5, "custom_id", "missing_required_parameter"),
    (6, "images[0]", "image_unreadable"),
    (7, "images[0]", "image_missing"),
]


def test_by_default_one_bad_line_fails_the_job_and_all_errors_are_told(here: Stack):
    job_id = here.submit(text(*BAD))
    result = here.ingest(job_id)
    assert (result.outcome, result.errors) == ("failed", len(ERRORS))
    job = here.job(job_id)
    assert (job.status, job.ended_at, job.error_count) == ("failed", 20.0, len(ERRORS))
    assert [(e["line"], e["field"], e["code"]) for e in job.errors] == ERRORS
    assert here.counts(job_id) == {}
    assert here.rows(job_id) == []


def test_bad_lines_can_be_skipped_and_still_count(here: Stack):
    job_id = here.submit(text(*BAD), on_bad_line="skip")
    assert here.ingest(job_id).outcome == "running"
    assert here.counts(job_id) == {"total": 8, "waiting": 2, "failed": 6}
    rows = here.rows(job_id)
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (1, "(line 1)", "failed"),
        (2, "q-1", "waiting"),
        (3, "(line 3)", "failed"),
        (4, "q-4", "failed"),
        (5, "(line 5)", "failed"),
        (6, "q-6", "failed"),
        (7, "q-7", "failed"),
        (8, "q-8", "waiting"),
    ]
    error = rows[3][4]
    assert (error["code"], error["retryable"], len(error["errors"])) == ("image_missing", False, 3)
    assert all("question" not in row[3] for row in rows if row[2] == "failed"), "what was refused is never run"
    assert here.job(job_id).error_count == len(ERRORS)


@pytest.mark.parametrize(
    ("data", "code"), [(b"", "empty_file"), (b"\n", "empty_file"), (b"\x1f\x8b\x08broken", "corrupt_compression")]
)
def test_an_unusable_file_fails_the_job_even_when_bad_lines_are_skipped(here: Stack, data: bytes, code: str):
    job_id = here.submit(data, on_bad_line="skip")
    assert here.ingest(job_id).outcome == "failed"
    assert [error["code"] for error in here.job(job_id).errors] == [code]


def test_a_deleted_file_fails_the_job(here: Stack):
    job_id = here.submit(text(*lines(1)))
    here.objects.delete(f"files/{here.job(job_id).input_file_id}")
    assert here.ingest(job_id).outcome == "failed"
    assert here.job(job_id).errors[0]["code"] == "file_not_found"


def test_only_the_first_errors_are_kept_and_all_are_counted(here: Stack):
    job_id = here.submit(b"{\n" * 250)
    assert here.ingest(job_id).errors == 250
    assert (len(here.job(job_id).errors), here.job(job_id).error_count) == (100, 250)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "CHUNK_LINES", 3)


class Interrupted(Exception):
    """Stands for a process that ends between two chunks."""


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("on_bad_line", ["fail", "skip"])
def test_an_ingest_that_ended_anywhere_goes_on_with_the_same_rows(here: Stack, on_bad_line: str):
    for bad in ((), (1,), (8,), (4, 13)):
        wanted: list[Any] = lines(14)
        for number in bad:
            wanted[number] = native("q-1", images=["none.png"])
        wanted[5:5] = [b"", b""]
        compare_disturbed(here, wanted, on_bad_line)


def compare_disturbed(here: Stack, wanted: list[Any], on_bad_line: str) -> None:
    """Ingest the same lines in one go and with an end at every second chunk."""
    undisturbed = here.submit(text(*wanted), on_bad_line=on_bad_line)
    here.ingest(undisturbed)
    disturbed = here.submit(text(*wanted), on_bad_line=on_bad_line)
    chunk_count = 0

    def stop_at_second() -> bool:
        nonlocal chunk_count
        chunk_count += 1
        if chunk_count % 2 == 0:
            raise Interrupted
        return False

    for _ in range(20):
        try:
            here.ingest(disturbed, stop=stop_at_second)
        except Interrupted:
            here.counts(disturbed)
            continue
        break
    assert chunk_count > 5
    assert here.rows(disturbed) == here.rows(undisturbed)
    assert here.counts(disturbed) == here.counts(undisturbed)
    one, other = here.job(undisturbed), here.job(disturbed)
    assert (one.status, one.errors, one.error_count) == (other.status, other.errors, other.error_count)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from orchestrator.intake.ingest import ingest
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings

url, data_dir, job_id = sys.argv[1:]
settings = Settings(data_dir=Path(data_dir))
chunks = 0

def stop():
    global chunks
    chunks += 1
    if chunks == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

ingest(open_database(url), open_objects(settings), settings, job_id, time.time, stop=stop)
"""


def test_a_killed_process_is_continued_by_the_next(here: Stack):
    sha256 = digest(png(5))
    with here.db.write() as conn:
        blobs.record(conn, "default", [blobs.BlobRow(sha256, len(png(5)), "image/png", 4, 4)], 1.0)
    job_id = here.submit(text(*[native(f"q-{number}", images=[f"blob:{sha256}"]) for number in range(7000)]))
    url = here.db.url.render_as_string(hide_password=False)
    killed = subprocess.run([sys.executable, "-c", KILLED, url, here.settings.data_dir, job_id], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert here.counts(job_id) == {"total": 4000, "waiting": 4000}
    assert here.ingest(job_id).lines == 3000
    assert here.counts(job_id) == {"total": 7000, "waiting": 7000}
    assert [row[1] for row in here.rows(job_id)] == [f"q-{number}" for number in range(7000)]


def test_images_that_lines_bring_along_share_objects(here: Stack):
    images = [png(number) for number in range(60)]
    uris = ["data:;base64," + base64.b64encode(image).decode() for image in images]
    assert here.ingest(here.submit(text(*[native(f"q-{n}", images=[uri]) for n, uri in enumerate(uris)]))).errors == 0
    assert len(list(here.objects.list("b"))) == 1
    with here.db.read() as conn:
        rows: list[Any] = [blobs.get(conn, "default", digest(image)) for image in images]
    assert [blobs.read(here.objects, row) for row in rows] == images


@pytest.mark.usefixtures("small_chunks")
def test_asked_to_stop_it_stops_between_chunks(here: Stack):
    job_id = here.submit(text(*lines(10)))
    answers = iter([False, True])
    assert here.ingest(job_id, stop=lambda: next(answers)).outcome == "interrupted"
    assert here.counts(job_id) == {"total": 3, "waiting": 3}
    assert here.job(job_id).status == "validating"
    assert here.ingest(job_id).lines == 7


@pytest.mark.usefixtures("small_chunks")
def test_a_cancelled_job_is_left_alone(here: Stack):
    job_id = here.submit(text(*lines(10)))

    def cancel() -> bool:
        with here.db.write() as conn:
            transitions.move_job(conn, job_id, "cancelling", 15.0, reason="test")
        return False

    assert here.ingest(job_id, stop=cancel).outcome == "superseded"
    assert here.counts(job_id) == {}


@pytest.mark.usefixtures("small_chunks")
def test_of_two_processes_one_gives_way(here: Stack):
    job_id = here.submit(text(*lines(10)))
    inner = []

    def second_comes() -> bool:
        if not inner:
            inner.append(None)
            inner.append(here.ingest(job_id))
        return False

    assert here.ingest(job_id, stop=second_comes).outcome == "superseded"
    assert inner[1] is not None
    assert inner[1].outcome == "running"
    assert here.counts(job_id) == {"total": 10, "waiting": 10}


def test_policy_of_the_job_is_what_overrides_are_checked_against(here: Stack):
    job_id = here.submit(text(*lines(1, policy={"candidates": 0})), policy={"candidates": 8})
    here.ingest(job_id)
    assert here.job(job_id).errors[0]["field"] == "policy.candidates"


def test_rows_hold_what_postgres_cannot_take_in_other_columns(here: Stack):
    odd = "back\\slash\ttab\nline \u2028 \U0001f600 'quote' \"double\" \\N \\."
    job_id = here.submit(text(native("ö \\N", question=odd, images=["0.png"], metadata={odd: odd})))
    assert here.ingest(job_id).outcome == "running"
    (row,) = here.rows(job_id)
    assert (row[1], row[3]["question"], row[3]["metadata"]) == ("ö \\N", odd, {odd: odd})


def test_a_connection_lost_in_the_middle_is_transient_and_the_next_call_goes_on(postgres_url: str, tmp_path: Path):
    here = stack(open_database(postgres_url), tmp_path)
    (tmp_path / "images" / "0.png").write_bytes(png(0))
    job_id = here.submit(text(native(images=["0.png"])))
    with pytest.raises(Transient):
        copy_without_connection(here, job_id)
    assert here.ingest(job_id).outcome == "running"
    here.db.close()


def copy_without_connection(here: Stack, job_id: str) -> None:
    with here.db.write() as conn:
        pid = conn.scalar(sql("SELECT pg_backend_pid()"))
        with here.db.read() as other:
            assert other.scalar(sql(f"SELECT pg_terminate_backend({pid}, 5000)"))
        insert_queries(conn, job_id, [NewQuery(1, "q-1", "{}")], 1.0)


def test_a_job_without_input_is_a_bug(here: Stack):
    job_id = here.submit(text(*lines(1)))
    with here.db.write() as conn:
        conn.execute(update(Job.__table__).where(Job.__table__.c.id == job_id).values(input_file_id=None))
    with pytest.raises(InvariantBroken, match="has no input file"):
        here.ingest(job_id)


def test_the_next_chunk_is_made_while_the_last_is_written():
    made, used = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2
        raise Transient("away")

    groups = chunking.ahead(items())
    used.append(next(groups))
    assert made.wait(5)
    used.append(next(groups))
    with pytest.raises(Transient):
        next(groups)
    assert used == [1, 2]


def test_nothing_is_made_ahead_once_the_reader_is_closed():
    groups = chunking.ahead(iter(range(1, 10)))
    assert next(groups) == 1
    groups.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("intake-ahead")]
