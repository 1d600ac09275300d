from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.errors import BadInput
from storage import questions
from storage.database import Database
from storage.objects import open_objects
from storage.search import job_terms, query_terms
from storage.settings import Settings
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
