"""Every page of the table: answers, keeps its budgets, names nothing from elsewhere."""

from __future__ import annotations

import gzip
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from orchestrator.web.pages import POLICY, Page
from orchestrator.web.routes import PAGES
from storage.access import ROLES
from tests.web.conftest import SAME_ORIGIN, Gallery
from tests.web.counting import statements

READABLE = [page for page in PAGES if page.method == "GET"]
CHANGING = [page for page in PAGES if page.method == "POST"]
HTML_BYTES = 200_000
ASSET_BYTES = 60_000
"""Compressed script and style of a page."""


def address(page: Page, filled: Gallery) -> str:
    """The page with everything in its path filled in."""
    from storage import questions

    query = filled.ids("labels")[1]
    with filled.site.db.read() as conn:
        row = questions.get(conn, "default", query)
        call = questions.calls(conn, query)[1].id
    assert row is not None
    parts = {
        "job_id": filled.jobs["labels"],
        "query_id": query,
        "call_id": call,
        "stage": "caption",
        "number": 0,
        "sha256": row.body["images"][0],
        "model": "scenes",
        "action_id": filled.action,
    }
    return page.path.format(**parts)


@pytest.mark.parametrize("page", READABLE, ids=lambda page: page.path)
def test_a_page_answers_within_its_budgets(page: Page, filled: Gallery):
    path = address(page, filled)
    with statements(filled.site.db) as seen:
        answer = filled.site.get(path)
    assert answer.status_code == 200, answer.text[:500]
    assert len(seen) <= page.statements, seen
    assert len(answer.content) <= HTML_BYTES or page.path.endswith(("raw", "original", "lines"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.headers["content-type"].startswith("text/html"):
        assert answer.headers["content-security-policy"] == POLICY
        check_html(answer.text)


@pytest.mark.parametrize("name", ["labels", "words", "published", "single", "faults", "paused", "running"])
def test_every_query_of_every_kind_of_job_can_be_looked_at(name: str, filled: Gallery):
    for query_id in filled.ids(name):
        answer = filled.site.get(f"/queries/{query_id}")
        assert answer.status_code == 200, (query_id, answer.text[:300])
        check_html(answer.text)
    for address in (f"/jobs/{filled.jobs[name]}", f"/jobs/{filled.jobs[name]}/judge"):
        assert filled.site.get(address).status_code == 200


class Checked(HTMLParser):
    """Refuses inline script and style, handlers, ids used twice, and addresses of others."""

    VOID = frozenset({"meta", "link", "input", "img", "br", "path", "rect", "circle", "option"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.problems.append(f"<{tag} {name}>")
            if name in ("src", "href", "action", "formaction") and not re.match(r"[/#?]", value or ""):
                self.problems.append(f"<{tag} {name}={value!r}>")
            if name == "id":
                if value in self.ids:
                    self.problems.append(f"id {value} twice")
                self.ids.add(value or "")
        if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
            self.problems.append(f"inline {tag}")


def check_html(html: str) -> None:
    parser = Checked()
    parser.feed(html)
    assert parser.problems == []
    assert "UNDEFINED" not in html


def test_scripts_and_styles_are_small(filled: Gallery):
    page = filled.site.get("/").text
    names = re.findall(r'(?:src|href)="/static/([^"?]+)\?v=', page)
    assert len(names) >= 5
    sizes = {name: len(gzip.compress(filled.site.get(f"/static/{name}").content, 9)) for name in names}
    assert sum(sizes.values()) <= ASSET_BYTES, sizes
    folder = files("orchestrator.web").joinpath("static")
    vendored = folder.joinpath("VENDORED.md").read_text()
    import hashlib

    for name in names:
        if ".min." in name:
            assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() in vendored


@pytest.mark.parametrize("page", CHANGING, ids=lambda page: page.path)
@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://elsewhere"}, {}],
    ids=["cross-site", "same-site", "origin", "silent"],
)
def test_a_form_of_another_site_is_refused(page: Page, headers: dict[str, str], filled: Gallery):
    path = address(page, filled)
    with statements(filled.site.db) as seen:
        answer = filled.site.http.post(path, data={"reason": "x"}, headers=headers)
    assert answer.status_code == 403
    assert not [each for each in seen if not each.lstrip().upper().startswith(("SELECT", "WITH"))]


def test_an_unknown_page_is_a_page_and_an_unknown_route_is_not(filled: Gallery):
    answer = filled.site.get("/no/such/page")
    assert answer.status_code == 404
    assert "there is no such page" in answer.text
    for route in ("/api/nothing", "/v1/nothing"):
        assert filled.site.get(route).json()["error"]["message"]
    for wrong in ("/jobs/job_none", "/queries/999999", "/queries/x", "/queries/1/calls/999999", "/images/abc"):
        assert filled.site.get(wrong).status_code == 404


def test_the_table_is_whole():
    assert len({(page.method, page.path) for page in PAGES}) == len(PAGES)
    assert all(page.role in (None, *ROLES) for page in PAGES)
    assert all(page.about for page in PAGES)
    assert {page.path for page in PAGES if page.role is None} == {"/login", "/logout"}
    assert all(page.role != "viewer" for page in CHANGING)


def test_a_browser_that_has_the_page_is_told_so(filled: Gallery):
    first = filled.site.get("/audit")
    again = filled.site.get("/audit", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_ten_viewers_cost_what_one_costs(filled: Gallery):
    filled.site.get("/")
    with statements(filled.site.db) as seen:
        for _ in range(10):
            filled.site.get("/")
    # Each asks whether a key exists; the snapshot is taken once or, when its time runs out meanwhile, twice.
    assert len(seen) <= 10 + 2 * 7


def test_tokens_of_a_page_add_up(filled: Gallery):
    for query_id in filled.ids("words")[:2]:
        text = filled.site.get(f"/queries/{query_id}").text
        trace = filled.site.get(f"/queries/{query_id}/raw").json()
        usage = trace["usage"]
        assert usage["kept"] + usage["discarded"] + usage["judged"] == usage["total"]["generated_tokens"]
        assert f"<b>{usage['total']['generated_tokens']}</b> tokens" in text.replace("\u202f", "")


def test_a_prompt_is_proven_by_its_hash(filled: Gallery):
    from storage import questions

    query = filled.ids("labels")[0]
    with filled.site.db.read() as conn:
        calls = questions.calls(conn, query)
    compare = next(call for call in calls if call.kind == "compare")
    text = filled.site.get(f"/queries/{query}/calls/{compare.id}").text
    assert text.count("This is the prompt whose hash the verdict recorded") == 2
    assert compare.outcome["verdict"]["showings"][0]["prompt_hash"] in text


def test_downloads_hold_what_they_say(filled: Gallery):
    job = filled.jobs["faults"]
    parts = {name: filled.site.get(f"/jobs/{job}/lines?part={name}") for name in ("all", "output", "errors")}
    counts = {name: len(answer.text.splitlines()) for name, answer in parts.items()}
    assert counts["all"] == counts["output"] + counts["errors"] == len(filled.ids("faults"))
    assert all("attachment" in answer.headers["content-disposition"] for answer in parts.values())


def test_a_path_prefix_is_kept_everywhere(filled: Gallery):
    from tests.web.conftest import site_over

    settings = filled.site.settings.model_copy(update={"path_prefix": "/beam"})
    site = site_over(filled.site.db, filled.site.objects, settings)
    for path in ("/", f"/jobs/{filled.jobs['labels']}", f"/queries/{filled.ids('labels')[0]}", "/new-job", "/nowhere"):
        for asked in (path, f"/beam{path}"):
            answer = site.get(asked)
            assert answer.status_code == (404 if path == "/nowhere" else 200)
            links = re.findall(r'(?:src|href|action)="(/[^"]*)"', answer.text)
            assert links
            assert all(link.startswith("/beam") for link in links)
    assert site.get("/beam/static/stagebeam.css").status_code == 200


def test_many_long_candidates_still_make_a_page(filled: Gallery):
    from workers.engine.scripted import Script, ScriptedEngine

    class Talkative(ScriptedEngine):
        def _spoil(self, request: Any, text: str, seed: int) -> Any:
            return super()._spoil(request, text.replace(". ", f". {seed} " + "and so on " * 150, 1), seed)

    filler = filled.site.filler()
    filler.engine = Talkative(Script(read_images=False))
    job = filler.job(filler.scenes(range(1)), policy={"candidates": 40, "max_tokens": 100_000})
    filler.run(job)
    with filled.site.db.read() as conn:
        from storage import questions
        from storage.search import Terms

        (row,) = questions.page(conn, job, Terms(), limit=5)
    answer = filled.site.get(f"/queries/{row.id}")
    assert row.status == "done"
    assert len(answer.content) < 3 * HTML_BYTES
    assert "from the first</a>" in answer.text
    check_html(answer.text)


def test_a_raw_trace_is_sent_in_pieces(filled: Gallery):
    from orchestrator.web.queries import PIECE, _written

    found = {"text": "\u202e é \ud800", "stages": [{"text": "x" * (PIECE // 2), "margin": 0.25, "none": None}] * 7}
    pieces = list(_written(found))
    assert max(map(len, pieces)) < 2 * PIECE
    assert len(pieces) == 4
    assert json.loads(b"".join(pieces)) == {**found, "text": "\u202e é ?"}


def test_folded_calls_still_show_the_tree(filled: Gallery):
    from sqlalchemy import delete

    from storage.tables import Call

    query = filled.ids("labels")[2]
    before = filled.site.get(f"/queries/{query}/raw").json()
    with filled.site.db.write() as conn:
        conn.execute(delete(Call.__table__).where(Call.__table__.c.query_id == query))
    assert filled.site.get(f"/queries/{query}/raw").json() == before
    page = filled.site.get(f"/queries/{query}").text
    assert "times are not kept" in page
    assert SAME_ORIGIN
