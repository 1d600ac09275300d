from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from orchestrator.web.diff import word_diff
from orchestrator.web.text import LINE_LIMIT, safe_utf8, short, shown, visible

NASTY = st.text(alphabet=st.characters(codec=None), max_size=200) | st.text(
    alphabet="<>&\"'\x00\x1b[31m\u202e\u2066\u200b\ud800\n\tab ", max_size=60
)
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class Text(HTMLParser):
    """Collects tags and text of a fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(NASTY)
def test_no_text_brings_a_tag_or_a_hidden_character(text: str):
    markup = shown(text)
    parser = Text()
    parser.feed(str(markup))
    assert isinstance(markup, Markup)
    assert parser.tags <= {"span"}
    assert not HIDDEN.search(str(markup))
    assert not HIDDEN.search(visible(text))
    safe_utf8(str(markup)).decode()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=100))
def test_plain_text_is_shown_as_it_is(text: str):
    parser = Text()
    parser.feed(str(shown(text)))
    assert parser.text == text
    assert visible(text) == text


def test_hidden_characters_are_named():
    assert visible("a\u202eb\x00") == "a[RLO]b[U+0000]"
    assert "RIGHT-TO-LEFT OVERRIDE" in shown("\u202e")
    assert ">ESC</span>[31m" in shown("\x1b[31mred")


def test_a_megabyte_without_a_break_is_cut_and_counted():
    markup = shown("x" * 1_000_000)
    assert len(markup) < LINE_LIMIT + 200
    assert "more characters" in markup
    assert markup.count("more characters") == 1
    assert f"{1_000_000 - LINE_LIMIT:,} more characters" in markup
    assert len(short("y" * 1_000_000)) == 80


@given(NASTY, NASTY)
def test_a_diff_loses_nothing(left: str, right: str):
    diff = word_diff(left, right)
    assert "".join(run.text for run in diff.left) == left
    assert "".join(run.text for run in diff.right) == right
    same = ["".join(run.text for run in side if run.kind == "same") for side in (diff.left, diff.right)]
    assert "".join(same[0].split()) == "".join(same[1].split())
    assert all(run.text == run.text.rstrip() for run in (*diff.left, *diff.right) if run.kind == "only")
    assert (diff.changed == 0) == (left == right)


def test_a_diff_marks_words_and_gives_up_on_books():
    diff = word_diff("a red circle", "a blue circle")
    assert [run.text for run in diff.left if run.kind == "only"] == ["red"]
    assert diff.changed == 1
    assert word_diff("a " * 5000, "b").changed is None
