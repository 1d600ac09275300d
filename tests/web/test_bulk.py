"""Actions on many queries: in slices, over restarts, with progress, stopped when somebody says so."""

from __future__ import annotations

import time

import pytest

from orchestrator import actions, bulk
from reasoning.errors import BadInput
from storage import bulk as rows
from storage import jobs, transitions
from storage.database import Database
from storage.queries import in_status
from tests.web.conftest import Site


@pytest.fixture(autouse=True)
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten queries are many."""
    monkeypatch.setattr(bulk, "SLICE", 4)
    monkeypatch.setattr(bulk, "COUNTED", 6)


def ended_job(site: Site, status: str = "failed", count: int = 10) -> str:
    """A job that ended with all its queries in one state."""
    filler = site.filler()
    job = filler.job(filler.scenes(range(count)), policy={"candidates": 2})
    error = {"code": "crash", "message": "it broke", "stage": None, "attempts": 1, "retryable": True}
    with site.db.write() as conn:
        ids = in_status(conn, job, ["waiting"], count)
        transitions.move_queries(
            conn, [transitions.QueryMove(n, job, status, {"error": error}) for n in ids], time.time()
        )
    filler.end(job)
    return job


def begin(site: Site, job: str, action: str = "retry", text: str = "status:failed") -> int:
    """Begin an action from the page; the id of its row."""
    answer = site.post(f"/jobs/{job}/bulk", {"reason": "mended", "action": action, "filter": text})
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("/")[2])


def job_row(db: Database, job: str):
    with db.read() as conn:
        return jobs.get(conn, job)


def action_row(db: Database, action: int):
    with db.read() as conn:
        return rows.row(conn, action)


def test_many_queries_are_changed_slice_by_slice_and_the_page_follows(site: Site):
    job = ended_job(site)
    action = begin(site, job)
    assert job_row(site.db, job).failed == 10, "the request itself changes nothing"
    page = site.get(f"/jobs/{job}/bulk/{action}").text
    assert 'data-live="on"' in page
    assert "mended" in page
    assert bulk.take_slice(site.db, action, time.time())
    row = action_row(site.db, action)
    assert (row.counted, row.line, row.changed, row.status) == (10, 4, 4, "running")
    assert (job_row(site.db, job).status, job_row(site.db, job).waiting) == ("running", 4)
    page = site.get(f"/jobs/{job}/bulk/{action}").text
    assert "<b>40.0 %</b>" in page
    assert "of 10 found at the start" in page
    assert "4 of 10 so far" in site.get(f"/jobs/{job}").text
    bulk.step(site.db, time.time, lambda: False)
    row = action_row(site.db, action)
    assert (row.changed, row.status) == (10, "done")
    assert job_row(site.db, job).waiting == 10
    page = site.get(f"/jobs/{job}/bulk/{action}").text
    assert 'data-live="off"' in page
    assert "Watch or stop it" not in site.get(f"/jobs/{job}").text


def test_what_died_between_two_slices_goes_on_behind_the_last_one(site: Site):
    """A query that fails again behind the cursor is not retried twice: the line, not the state, says what is left."""
    job = ended_job(site)
    action = begin(site, job)
    bulk.step(site.db, time.time, iter([False, True]).__next__)
    assert action_row(site.db, action).changed == 4
    with site.db.write() as conn:
        (first, *_) = in_status(conn, job, ["waiting"], 1)
        transitions.move_queries(conn, [transitions.QueryMove(first, job, "failed")], time.time())
    bulk.step(site.db, time.time, lambda: False)
    assert action_row(site.db, action).changed == 10
    assert (job_row(site.db, job).failed, job_row(site.db, job).waiting) == (1, 9)


def test_stop_ends_it_where_it_stands(site: Site):
    job = ended_job(site, "cancelled")
    action = begin(site, job, text="status:cancelled")
    bulk.take_slice(site.db, action, time.time())
    answer = site.post(f"/jobs/{job}/bulk/{action}/stop")
    page = site.get(answer.headers["location"]).text
    assert "Somebody stopped it." in page
    assert not bulk.take_slice(site.db, action, time.time())
    bulk.step(site.db, time.time, lambda: False)
    assert job_row(site.db, job).waiting == 4
    assert site.post(f"/jobs/{job}/bulk/{action}/stop").status_code == 409
    audit = site.get("/audit").text
    assert "job.bulk_retry.stopped" in audit
    assert "4 changed; somebody stopped it" in audit


def test_a_cancel_of_the_job_ends_a_retry_under_way(site: Site):
    job = ended_job(site)
    action = begin(site, job)
    bulk.take_slice(site.db, action, time.time())
    actions.cancel_job(site.db, job, time.time() + 1, "no, leave it")
    assert not bulk.take_slice(site.db, action, time.time() + 2)
    row = action_row(site.db, action)
    assert (row.status, row.changed, row.note) == ("stopped", 4, "the job was cancelled meanwhile")


def test_a_retry_waits_while_the_files_of_its_job_are_written(site: Site):
    job = ended_job(site)
    action = begin(site, job)
    bulk.take_slice(site.db, action, time.time())
    with site.db.write() as conn:
        transitions.move_job(conn, job, "finalizing", time.time(), reason="all queries ended")
    assert not bulk.take_slice(site.db, action, time.time())
    assert action_row(site.db, action).status == "running"
    with site.db.write() as conn:
        transitions.move_job(conn, job, "completed", time.time(), reason="the files are written")
    bulk.step(site.db, time.time, lambda: False)
    assert (action_row(site.db, action).status, job_row(site.db, job).waiting) == ("done", 10)


def test_a_job_that_is_retried_is_folded_again_later(site: Site):
    job = ended_job(site)
    with site.db.write() as conn:
        jobs.set_folded(conn, job, time.time())
    action = begin(site, job)
    bulk.take_slice(site.db, action, time.time())
    assert job_row(site.db, job).folded_at is None


def test_lines_that_never_could_run_are_not_counted(site: Site):
    filler = site.filler()
    lines = filler.scenes(range(3))
    del lines[1]["question"]
    job = filler.job(lines)
    with site.db.write() as conn:
        ids = in_status(conn, job, ["waiting"], 3)
        transitions.move_queries(conn, [transitions.QueryMove(n, job, "failed") for n in ids], time.time())
        assert bulk.count(conn, job, bulk.query_terms(""), "retry") == 2


def test_results_that_were_removed_end_a_retry(site: Site):
    from orchestrator.removal import remove_results

    job = ended_job(site)
    action = begin(site, job)
    remove_results(site.db, site.objects, job, time.time(), "holds names")
    assert not bulk.take_slice(site.db, action, time.time())
    row = action_row(site.db, action)
    assert row.status == "failed"
    assert "holds names" in row.note
    with pytest.raises(BadInput):
        bulk.start(site.db, job, "", "retry", time.time(), reason="x", actor="local")
