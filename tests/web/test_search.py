from __future__ import annotations

import html
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.errors import BadInput
from storage import questions
from storage.causes import caused, mark
from storage.database import Database
from storage.objects import open_objects
from storage.search import job_terms, query_terms
from storage.settings import Settings
from storage.transitions import QueryMove, move_queries
from tests.web.conftest import Site
from tests.web.filled import Filler


def test_a_filter_is_fields_and_words():
    terms = query_terms('status:failed,expired error:deadline id:"a b" 17')
    assert terms.fields == {"status": ("failed", "expired"), "error": ("deadline",), "id": ("a b",)}
    assert terms.words == ("17",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stauts:failed", 'Did you mean "status"'),
        ("status:faild", 'Did you mean "failed"'),
        ("line:x", "not a line number"),
        ('id:"never ends', "close the quote"),
        ("x" * 501, "longer than"),
    ],
)
def test_a_wrong_filter_names_the_bad_word(text: str, said: str):
    with pytest.raises(BadInput, match=said):
        query_terms(text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str):
    for read in (query_terms, job_terms):
        with suppress(BadInput):
            assert read(text).text == text.strip()


@given(st.text(), st.text(), st.integers(0), st.integers(0))
def test_a_mark_is_shared_by_what_differs_in_numbers_alone(before: str, code: str, one: int, other: int):
    assert mark(code, f"{before} {one} px") == mark(code, f"{before} {other} px")


def test_a_mark_tells_codes_and_messages_apart():
    assert len({mark("a", "x"), mark("b", "x"), mark("a", "y"), mark("a", "")}) == 4


def test_the_link_of_a_cause_finds_exactly_its_group(site: Site):
    filler = site.filler()
    job = filler.job(filler.scenes(range(9)), policy={"candidates": 2})
    told = ["image 1 is too large: 9000x9000", "image 2 is too large: 8000x80", "image 3 cannot be decoded"]
    with site.db.write() as conn:
        rows = questions.page(conn, job, query_terms(""), limit=50)
        moves = [
            QueryMove(row.id, job, "failed", {"error": caused({"code": "bad_image", "message": told[place % 3]})})
            for place, row in enumerate(rows[:8])
        ]
        move_queries(conn, [QueryMove(row.id, job, "running") for row in rows], filler.now)
        move_queries(conn, moves, filler.now)
    page = site.get(f"/jobs/{job}").text
    links = re.findall(r'<a class="figure s-failed" href="([^"]+)">(\d+)</a>', page)
    assert [count for _, count in links] == ["6", "2"]
    for link, count in links:
        listed = site.get(html.unescape(link)).text
        assert len(set(re.findall(r"/queries/(\d+)", listed))) == int(count)
        bulk = html.unescape(link).replace("/queries", "/bulk")
        assert f"Retry {count} queries" in site.get(bulk).text


def test_filters_find_the_same_on_both_databases(database: Database, settings: Settings):
    filler = Filler(database, open_objects(settings), 1_000_000.0)
    job = filler.job(filler.scenes(range(8)), policy={"candidates": 2})
    filler.run(job, queries_=4)
    with database.read() as conn:

        def lines(text: str) -> list[int]:
            return [row.line for row in questions.page(conn, job, query_terms(text), limit=50)]

        assert lines("") == list(range(1, 9))
        assert lines("is:ended") == [1, 2, 3, 4]
        assert lines("status:waiting") == [5, 6, 7, 8]
        assert lines("scene-0002") == [3]
        assert lines("5 is:open") == [5]
        assert lines("error:deadline") == []
        assert lines("%") == []
        terms = query_terms("is:open")
        assert questions.count(conn, job, terms) == 4
        assert questions.count(conn, job, terms, up_to_line=6) == 2
        ids = {row.line: row.id for row in questions.page(conn, job, query_terms(""), limit=50)}
        assert questions.beside(conn, job, terms, 6) == (ids[5], ids[7])
        back = questions.page(conn, job, query_terms(""), limit=2, before=4)
        assert [row.line for row in back] == [3, 2, 1]
