"""What people do from pages: it happens, it is audited with its reason, and nobody without the right does it."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.removal import remove_marked_rows
from orchestrator.web.routes import PAGES
from storage import jobs, overview, questions
from storage.access import ROLES, list_keys, note
from storage.search import Terms
from storage.tables import AuditEntry, Call, Job, QueueControl, Worker
from storage.transitions import QUERY_MOVES
from tests.web.conftest import SAME_ORIGIN, Site, site_over
from tests.web.filled import Filler
from workers.engine.scripted import Script, ScriptedEngine


def status(site: Site, job: str) -> Any:
    with site.db.read() as conn:
        return jobs.get(conn, job)


def audited(site: Site) -> list[tuple[str, str, str | None]]:
    table = AuditEntry.__table__
    with site.db.read() as conn:
        return [tuple(row) for row in conn.execute(select(table.c.action, table.c.subject, table.c.reason))]


def running_job(site: Site, count: int = 3) -> str:
    filler = site.filler()
    return filler.job(filler.scenes(range(count)), policy={"candidates": 2})


def failed_job(site: Site, filler: Filler | None = None) -> str:
    filler = filler or site.filler()
    filler.engine = ScriptedEngine(Script(crash=0.9, read_images=False))
    job = filler.job(filler.scenes(range(6)), policy={"candidates": 2, "retries": 0, "judge": "words"})
    filler.run(job)
    filler.end(job)
    return job


def test_pause_resume_and_cancel(site: Site):
    job = running_job(site)
    assert site.post(f"/jobs/{job}/pause", {"reason": "look first"}).headers["location"].startswith(f"/jobs/{job}")
    assert status(site, job).paused_reason == "look first"
    page = site.get(f"/jobs/{job}").text
    assert "look first" in page
    assert "Resume" in page
    assert site.post(f"/jobs/{job}/resume").status_code == 303
    assert status(site, job).paused_at is None
    assert site.post(f"/jobs/{job}/cancel", {"reason": "wrong file"}).status_code == 303
    assert status(site, job).status == "cancelling"
    assert [entry[0] for entry in audited(site)] == ["job.pause", "job.resume", "job.cancel"]
    assert audited(site)[2] == ("job.cancel", job, "wrong file")
    listed = site.get("/audit").text
    assert "wrong file" in listed


def test_a_second_cancel_gives_up_what_runs(site: Site):
    filler = site.filler()
    job = filler.job(filler.scenes(range(3)), policy={"candidates": 2})
    filler.run(job, queries_=2, steps=3)
    assert "Stop now" not in site.get(f"/jobs/{job}").text
    assert site.post(f"/jobs/{job}/cancel", {"reason": "wrong file"}).status_code == 303
    page = site.get(f"/jobs/{job}").text
    assert "nothing new starts; 2 queries that run may still end" in page
    assert "What still runs (2 queries) ends as cancelled" in page
    answer = site.post(f"/jobs/{job}/cancel", {"reason": "no time", "now": "1"})
    assert "what still runs is given up" in site.get(answer.headers["location"]).text
    assert status(site, job).killed_at is not None
    assert "Stop now" not in site.get(f"/jobs/{job}").text
    assert [entry[:1] + entry[2:] for entry in audited(site)] == [
        ("job.cancel", "wrong file"),
        ("job.cancel_now", "no time"),
    ]


def test_an_act_needs_its_reason(site: Site):
    job = running_job(site)
    for path in (f"/jobs/{job}/cancel", f"/jobs/{job}/pause", "/queues/pause"):
        answer = site.post(path, {"reason": "   "})
        assert answer.status_code == 400
        assert "say why" in answer.text
    assert status(site, job).status == "running"
    assert audited(site) == []


def test_retry_starts_what_failed(site: Site):
    job = failed_job(site)
    before = status(site, job)
    assert before.status == "completed"
    assert before.failed > 1
    answer = site.post(f"/jobs/{job}/retry", {"reason": "the engine is mended"})
    after = status(site, job)
    assert (after.status, after.waiting, after.failed) == ("running", before.failed, 0)
    assert f"{before.failed} queries wait again" in site.get(answer.headers["location"]).text


def test_an_act_that_comes_too_late_is_explained(site: Site):
    job = failed_job(site)
    answer = site.post(f"/jobs/{job}/cancel", {"reason": "x"})
    assert answer.status_code == 409
    assert "only a job that is validating or running" in answer.text


def test_a_manifest_names_what_the_downloads_give(site: Site):
    filler = site.filler()
    filler.engine = ScriptedEngine(Script(crash=0.04, read_images=False))
    job = filler.job(filler.scenes(range(12)), policy={"candidates": 2, "retries": 0, "judge": "words"})
    early = site.get(f"/jobs/{job}/manifest")
    assert (early.status_code, "come at the end" in early.text) == (409, True)
    assert "/manifest" not in site.get(f"/jobs/{job}").text
    filler.run(job)
    filler.end(job)
    assert f"/jobs/{job}/manifest" in site.get(f"/jobs/{job}").text
    answer = site.get(f"/jobs/{job}/manifest")
    assert f'filename="{job}-manifest.json"' in answer.headers["content-disposition"]
    manifest = answer.json()
    ended = status(site, job)
    assert manifest["counts"] == {"total": 12, **{state: getattr(ended, state) for state in QUERY_MOVES}}
    files = {entry["name"]: entry for entry in manifest["files"]}
    assert set(files) == {"output.jsonl", "error.jsonl"}
    for part, name in (("output", "output.jsonl"), ("errors", "error.jsonl")):
        data = site.get(f"/jobs/{job}/lines?part={part}").content
        entry = files[name]
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry["lines"] == len(data.splitlines()) > 0


def test_results_are_removed_for_good(site: Site):
    filler = site.filler()
    job, other = failed_job(site, filler), failed_job(site, filler)
    running = filler.job(filler.scenes(range(2)))
    query = ids(site, job)[0]
    kept = status(site, other)
    site.login("operator")
    assert "Remove the results" not in site.get(f"/jobs/{job}").text
    assert site.post(f"/jobs/{job}/remove", {"reason": "no"}).status_code == 403
    site.login("admin")
    assert "Remove the results" in site.get(f"/jobs/{job}").text
    before = status(site, job)
    answer = site.post(f"/jobs/{job}/remove", {"reason": "holds names"})
    page = site.get(answer.headers["location"]).text
    assert "The results of this job were removed" in page
    assert "/lines" not in page
    assert site.post(f"/jobs/{job}/remove", {"reason": "twice"}).status_code == 400
    refused = site.get(f"/jobs/{job}/lines")
    assert "holds names" in refused.text
    assert remove_marked_rows(site.db, site.objects) == before.total
    assert remove_marked_rows(site.db, site.objects) == 0
    after = status(site, job)
    assert (after.failed, after.done, after.rows_kept, after.output_file_id) == (before.failed, before.done, 0, None)
    assert [entry.key for entry in site.objects.list(f"jobs/{job}/")] == []
    assert site.get(f"/queries/{query}").status_code == 404
    assert status(site, other) == kept
    assert len(ids(site, other)) == kept.total
    assert site.post(f"/jobs/{running}/remove", {"reason": "x"}).status_code == 409


def ids(site: Site, job: str) -> list[int]:
    with site.db.read() as conn:
        return [row.id for row in questions.page(conn, job, Terms(), limit=50)]


def test_a_bulk_act_says_its_number_first(site: Site):
    job = failed_job(site)
    failed = status(site, job).failed
    page = site.get(f"/jobs/{job}/bulk?filter=status:failed")
    assert f"Retry {failed} queries" in page.text
    assert "Nothing to cancel here" in page.text
    assert status(site, job).failed == failed
    form = {"reason": "once more", "action": "retry", "filter": "status:failed error:crash"}
    assert site.post(f"/jobs/{job}/bulk", form).status_code == 303
    after = status(site, job)
    assert (after.status, after.waiting) == ("running", failed)
    nothing = {"reason": "x", "action": "retry", "filter": "error:deadline"}
    assert site.post(f"/jobs/{job}/bulk", nothing).status_code == 409
    cancel = {"reason": "never mind", "action": "cancel", "filter": "status:waiting"}
    answer = site.post(f"/jobs/{job}/bulk", cancel)
    assert f"{failed} queries were cancelled" in site.get(answer.headers["location"]).text
    assert status(site, job).cancelled == failed
    assert [(what, why) for what, _, why in audited(site)] == [
        ("job.bulk_retry", "once more"),
        ("job.bulk_retry.done", f"{failed} changed"),
        ("job.bulk_cancel", "never mind"),
        ("job.bulk_cancel.done", f"{failed} changed"),
    ]
    assert site.get(f"/jobs/{job}/bulk").text.count("/bulk/") == 2


def test_queues_and_workers(site: Site):
    filler = site.filler()
    filler.beat("gpu-0@here:1:1", beat_at=time.time())
    queue = {"model": "hub/scenes", "reason": "driver"}
    assert site.post("/queues/pause", queue).status_code == 303
    with site.db.read() as conn:
        assert conn.execute(select(QueueControl.__table__)).one().reason == "driver"
    assert "driver" in site.get("/").text
    assert site.post("/queues/pause", queue).status_code == 409
    assert site.post("/queues/resume", queue).status_code == 303
    drain = {"worker": "gpu-0@here:1:1", "wanted": "drain", "reason": "update"}
    assert site.post("/workers/drain", drain).status_code == 303
    with site.db.read() as conn:
        assert conn.execute(select(Worker.__table__)).one().wanted == "drain"
    assert "Work again" in site.get("/workers").text
    assert site.post("/workers/drain", {**drain, "worker": "nobody"}).status_code == 404
    job = running_job(site)
    filler.now = time.time()
    filler._admit(job, None)
    answer = site.post("/queues/send", {"model": "scenes", "reason": "nothing moves"})
    assert "n=3" in answer.headers["location"]
    with site.db.read() as conn:
        assert {row.sent_at for row in conn.execute(select(Call.__table__))} == {0.0}


def test_a_broker_that_is_away_is_unknown_and_never_zero(site: Site):
    running_job(site)
    page = site.get("/workers").text
    assert "unknown" in page
    assert "Broker" in page


MATRIX = [page for page in PAGES if page.role is not None]
PARTS = {"action_id": 1, "query_id": 1, "call_id": 1, "stage": "caption", "number": 0, "sha256": "0" * 64}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_and_does_what_is_its_own(role: str, site: Site):
    job = running_job(site)
    site.login(role)
    for page in MATRIX:
        assert page.role is not None
        path = page.path.format(
            job_id=job, action_id=1, query_id=1, call_id=1, stage="caption", number=0, sha256="0" * 64
        )
        answer = site.get(path) if page.method == "GET" else site.post(path)
        allowed = ROLES.index(role) >= ROLES.index(page.role)
        assert (answer.status_code == 403) is not allowed, (path, answer.status_code)
    assert ("Cancel the job" in site.get(f"/jobs/{job}").text) is (role != "viewer")


def test_nobody_sees_anything_without_a_session(site: Site):
    job = running_job(site)
    site.key()
    for page in MATRIX:
        path = page.path.format(
            job_id=job, action_id=1, query_id=1, call_id=1, stage="caption", number=0, sha256="0" * 64
        )
        answer = site.http.request(page.method, path, headers=SAME_ORIGIN, follow_redirects=False)
        assert answer.status_code == 303
        assert "/login" in answer.headers["location"]


def test_a_session_ends_with_logging_out_and_with_its_key(site: Site):
    from storage.access import revoke_key

    site.login("admin")
    assert site.get("/settings").status_code == 200
    assert site.post("/logout").status_code == 303
    assert site.get("/settings", follow_redirects=False).status_code == 303
    site.login("admin")
    with site.db.write() as conn:
        for row in list_keys(conn):
            revoke_key(conn, row.id, time.time())
    assert site.get("/settings", follow_redirects=False).status_code == 303


def test_a_wrong_key_and_a_forged_cookie_open_nothing(site: Site):
    site.key()
    answer = site.post("/login", {"key": "sb-wrong"})
    assert answer.status_code == 403
    assert "wrong or was revoked" in answer.text
    assert "set-cookie" not in answer.headers
    with site.db.read() as conn:
        key_id = list_keys(conn)[0].id
    site.http.cookies.set("stagebeam_session", f"{key_id}.abc.def")
    assert site.get("/", follow_redirects=False).status_code == 303
    for _ in range(9):
        site.post("/login", {"key": "sb-wrong"})
    assert site.post("/login", {"key": "sb-wrong"}).status_code == 429


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil", "javascript:alert(1)"])
def test_logging_in_leads_nowhere_else(back: str, site: Site):
    answer = site.post("/login", {"key": site.key(), "back": back})
    assert answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=lax" in answer.headers["set-cookie"]


def test_read_only_changes_nothing_for_anybody(site: Site):
    job = running_job(site)
    closed = site_over(site.db, site.objects, site.settings.model_copy(update={"read_only": True}))
    for page in PAGES:
        if page.method == "POST" and page.role is not None:
            path = page.path.format(job_id=job, action_id=1)
            answer = closed.post(path, {"reason": "x"})
            assert answer.status_code == 403
            assert "read-only" in answer.text
    page = closed.get(f"/jobs/{job}").text
    assert "read-only" in page
    assert "Cancel" not in page
    assert audited(site) == []


def test_another_project_sees_nothing(site: Site):
    from storage.access import create_key, create_project

    job = running_job(site)
    scenes = site.filler().scenes(range(1))
    picture = f"/images/{scenes[0]['images'][0]}"
    assert [site.get(address).status_code for address in (picture, f"{picture}/original")] == [200, 200]
    with site.db.write() as conn:
        create_project(conn, "other", "other", 0.0)
        token = create_key(conn, project_id="other", name="o", role="admin", now=0.0).token
        query = conn.execute(select(Call.__table__.c.query_id)).first()
        assert query is None
    site.post("/login", {"key": token})
    assert site.get(f"/jobs/{job}").status_code == 404
    assert job not in site.get("/jobs").text
    assert site.get("/queries/1").status_code == 404
    assert [site.get(address).status_code for address in (picture, f"{picture}/original")] == [404, 404]
    assert site.post(f"/jobs/{job}/cancel", {"reason": "x"}).status_code == 404
    with site.db.read() as conn:
        assert overview.active(conn, "other") == []
        assert conn.execute(select(Job.__table__.c.status)).scalar_one() == "running"


def test_the_list_of_jobs_says_who_submitted_each_and_what_it_cost(site: Site):
    filler = site.filler()
    job = filler.job(filler.scenes(range(2)), policy={"candidates": 2})
    filler.run(job)
    assert '<th class="n">Cost</th>' not in site.get("/jobs").text
    row = status(site, job)
    with site.db.write() as conn:
        note(conn, project_id="default", actor="local", action="job.submit", subject=job, now=row.created_at)
    listed = site.get("/jobs").text
    assert '<td class="aside">local</td>' in listed
    site.login("operator")
    with site.db.write() as conn:
        key = list_keys(conn)[0].id
        conn.execute(AuditEntry.__table__.update().values(actor=key))
    assert '<td class="aside">operator key</td>' in site.get("/jobs").text
    assert "by operator key" in site.get(f"/jobs/{job}").text
    prices = {"price_input": 2.0, "price_output": 10.0}
    priced = site_over(site.db, site.objects, site.settings.model_copy(update=prices))
    priced.login("viewer")
    generated = row.kept_tokens + row.discarded_tokens + row.judged_tokens
    cost = (2.0 * row.prompt_tokens + 10.0 * generated) / 1e6
    assert f'<td class="n aside">{cost:.2g}</td>' in priced.get("/jobs").text
    assert f"<dd>{cost:.2g}</dd>" in priced.get(f"/jobs/{job}").text
