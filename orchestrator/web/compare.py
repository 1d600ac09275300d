"""Two jobs over the same questions: where the answers differ first, then what was gained and lost."""

from __future__ import annotations

from collections import Counter

from starlette.responses import Response

from orchestrator.web.pages import Ask
from storage import overview, questions
from storage.questions import Pair
from storage.search import Terms

WINDOW = 500
"""Lines of the first job compared at a time; the page says which, and leads on."""
SHOWN = 200
CHOICES = 100
KINDS = ("gained", "lost", "flipped", "one_sided", "same")


def compare(ask: Ask) -> Response:
    """The page: a choice of two jobs, and their differences once both are chosen."""
    names = (ask.query.get("a", ""), ask.query.get("b", ""))
    after = ask.query.get("after", "")
    start = int(after) if after.isdigit() and len(after) < 13 else 0
    with ask.use.db.read() as conn:
        project = ask.viewer.project_id
        jobs = [overview.job(conn, project, name) if name else None for name in names]
        both = jobs[0] is not None and jobs[1] is not None
        window, last = questions.pairs(conn, *names, after=start, lines=WINDOW) if both else ([], None)
        choices = overview.jobs_page(conn, project, Terms(), limit=CHOICES)[:CHOICES]
    named = [(kind_of(row), row) for row in window]
    ranked = sorted(named, key=lambda pair: (KINDS.index(pair[0]), pair[1].line))
    return ask.page(
        "compare.html",
        jobs=jobs,
        names=names,
        choices=choices,
        rows=ranked[:SHOWN],
        kinds=Counter(kind for kind, _ in named),
        known=sum(row.known is not None for row in window),
        right=[sum(_right(row.known, answer) for row, answer in _answers(window, side)) for side in (0, 1)],
        total=len(window),
        start=start,
        following=last,
        last=last or max((row.line for row in window), default=0),
    )


def kind_of(row: Pair) -> str:
    """What became of one question: by the known answer where there is one, else by whether the answers agree."""
    if row.a_answer is None or row.b_answer is None:
        return "same" if row.a_answer is row.b_answer else "one_sided"
    if row.known is not None:
        before, after = _right(row.known, row.a_answer), _right(row.known, row.b_answer)
        if before != after:
            return "gained" if after else "lost"
    return "same" if _plain(row.a_answer) == _plain(row.b_answer) else "flipped"


def _answers(rows: list[Pair], side: int) -> list[tuple[Pair, str | None]]:
    return [(row, row.a_answer if side == 0 else row.b_answer) for row in rows]


def _right(known: str | None, answer: str | None) -> bool:
    return known is not None and answer is not None and _plain(known) == _plain(answer)


def _plain(text: str) -> str:
    return text.strip().casefold()
