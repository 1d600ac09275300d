"""What a terminal shows of long texts and wide tables."""

from __future__ import annotations

import pytest

from orchestrator.cli.terminal.fit import field_lines, shortened, table_layout
from orchestrator.cli.terminal.tree import trace_lines

LONG = "word " * 1000


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("text", [LONG, "x" * 5000, "漢字" * 500, "line\n" * 500, "\x1b[2J" * 200])
def test_a_field_never_is_wider_than_the_terminal_and_tells_what_is_left_out(text: str, width: int):
    from rich.cells import cell_len

    lines = field_lines("question", text, 22, width)
    assert all(cell_len(line) <= max(width, 36) for line in lines)
    assert len(lines) <= 8
    assert lines[-1].strip().endswith(("more characters; --json shows all", "more characters (--json)"))
    assert "\x1b" not in "".join(lines)


def test_without_a_terminal_all_is_there():
    assert field_lines("a", "one\ntwo", 3, None) == ["a    one", "     two"]
    assert field_lines("a", LONG, 3, None) == [f"a    {LONG}"]


def test_the_number_left_out_is_right():
    lines = shortened("ab cd ef", 2, 2)
    assert lines == ["ab", "cd", "… 3 more characters (--json)"]
    assert shortened("ab cd", 2, 2) == ["ab", "cd"]
    assert shortened("", 10, 2) == [""]


def test_an_answer_may_be_longer():
    text = "word " * 200
    assert not field_lines("answer", text, 10, 80)[-1].endswith("all")
    assert field_lines("question", text, 10, 80)[-1].endswith("all")


def test_a_table_keeps_ids_whole_or_is_none():
    fields, row = ("id", "counts.done", "name"), ["job_6b08f509c7653294c53d65da", "12", "a long name of a job"]
    assert table_layout(fields, [row], None) == (1, [28, 4, 20])
    assert table_layout(fields, [row], 80) == (1, [28, 4, 20])
    assert table_layout(fields, [row], 50) == (1, [28, 4, 12])
    assert table_layout(fields, [row], 42) == (0, [28, 4, 8])
    assert table_layout(fields, [row], 41) is None
    assert table_layout(fields, [], 80) == (1, [2, 4, 4])


def test_a_trace_is_cut_to_the_terminal_and_says_so():
    candidate = {"status": "kept", "index": 0, "text": LONG, "reason": ""}
    stage = {"stage": "summary", "flaw": None, "candidates": [candidate], "verdicts": []}
    query = {"id": 7, "error": None, "degraded_reason": None, "answer": "yes", "status": "done"}
    trace = {"custom_id": "q1", "question": LONG, "choices": [LONG, "b"], "stages": [stage]}
    for columns in (50, 120, 300):
        lines = list(trace_lines({"trace": trace, "query": query}, columns))
        assert max(map(len, lines[:-1])) == columns
        assert "--json" in lines[-1]
    short = {**trace, "question": "?", "choices": [], "stages": []}
    assert list(trace_lines({"trace": short, "query": query}, 50))[-1] == "DONE  yes"
