"""Submitting from the page: checked and planned first, then submitted as planned."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from orchestrator.intake.ingest import ingest
from storage import jobs
from tests.web.conftest import SAME_ORIGIN, Site


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


GOOD = lines(*({"custom_id": f"q{n}", "question": "What?", "images": [picture()]} for n in range(3)))
BAD = lines(
    {"custom_id": "a", "question": "What?", "images": [picture()]},
    {"custom_id": "a", "qestion": "What?", "images": [picture()]},
    {"custom_id": "c", "question": "What?", "images": ["/etc/passwd"]},
)


def send(site: Site, address: str, fields: dict[str, str], data: bytes | None = None) -> Any:
    files = {"file": ("in put.jsonl", data)} if data is not None else None
    return site.http.post(address, data=fields, files=files, headers=SAME_ORIGIN, follow_redirects=False)


def file_of(page: str) -> str:
    found = re.search(r'name="file_id" value="([^"]+)"', page)
    assert found
    return found[1]


FIELDS = {"model": "scripted", "name": "from the page", "policy.candidates": "2", "policy.judge": "words"}


def test_a_good_file_is_planned_then_submitted(site: Site):
    page = send(site, "/new-job", FIELDS, GOOD)
    assert page.status_code == 200
    assert "in put.jsonl" in page.text
    assert "Submit 3 queries" in page.text
    assert "disabled" not in page.text
    assert '"candidates": 2' in page.text.replace("&#34;", '"')
    with site.db.read() as conn:
        assert jobs.in_status(conn, "validating") == []
    answer = send(site, "/new-job/run", {**FIELDS, "file_id": file_of(page.text)})
    assert answer.status_code == 303
    job = answer.headers["location"].split("/")[2].partition("?")[0]
    ingest(site.db, site.objects, site.settings, job, lambda: 1.0)
    with site.db.read() as conn:
        row = jobs.get(conn, job)
    assert (row.total, row.name, row.policy["candidates"], row.policy["judge"]) == (3, "from the page", 2, "words")
    assert "was submitted" in site.get(answer.headers["location"]).text
    assert "job.submit" in site.get("/audit").text
    again = send(site, "/new-job", FIELDS, GOOD).text
    assert "The same file was submitted with the same settings" in again
    cloned = site.get(f"/new-job?like={job}").text
    assert 'value="from the page"' in cloned
    assert "in put.jsonl" in cloned


def test_bad_lines_are_named_and_stop_the_button(site: Site):
    page = send(site, "/new-job", FIELDS, BAD).text
    assert "2 refused" in page
    assert "disabled" in page
    assert "duplicate_custom_id" in page
    assert "Did you mean &#34;question&#34;" in page
    assert "images[0]" in page
    skipping = send(site, "/new-job", {**FIELDS, "on_bad_line": "skip", "file_id": file_of(page)}).text
    assert "Submit 1 query" in skipping
    assert "disabled" not in skipping


def test_pasted_lines_will_do(site: Site):
    page = send(site, "/new-job", {**FIELDS, "lines": GOOD.decode()})
    assert "Submit 3 queries" in page.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"policy.candidates": "many"}, "write a whole number"),
        ({"policy.candidates": "900"}, "use 1 to 64"),
        ({"policy.temperature": "9"}, "greedy"),
        ({"priority": "soon"}, "Use one of"),
        ({"policy.strategy": "beem"}, "unknown strategy"),
    ],
)
def test_a_wrong_setting_is_named_and_the_form_kept(fields: dict[str, str], said: str, site: Site):
    page = send(site, "/new-job", {**FIELDS, **fields}, GOOD)
    assert page.status_code == 400
    assert said in page.text
    assert 'value="from the page"' in page.text
    assert file_of(page.text)


def test_nothing_chosen_is_said(site: Site):
    page = send(site, "/new-job", FIELDS)
    assert page.status_code == 400
    assert "choose a file" in page.text
    gone = send(site, "/new-job/run", {**FIELDS, "file_id": "file-none"})
    assert gone.status_code == 400


def test_a_plan_tells_engine_time_from_history(site: Site):
    filler = site.filler()
    job = filler.job(filler.scenes(range(2)), policy={"candidates": 2}, model="scripted")
    filler.run(job)
    page = send(site, "/new-job", {"model": "scripted", "policy.candidates": "2"}, GOOD).text
    assert "from 1 earlier job of this policy" in page
