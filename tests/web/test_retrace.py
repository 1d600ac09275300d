"""A search that went back to a stage, on the page: rows made by hand, as no strategy does so yet."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import insert, select, update

from storage.tables import Call, Query
from tests.web.conftest import Site
from tests.web.test_pages import check_html

AGAIN = ("caption", "reasoning")
"""Stages that are begun a second time."""


def again(value: Any) -> Any:
    """References to calls of the first round of these stages, as ones to the second."""
    if isinstance(value, str):
        return re.sub(rf"^({'|'.join(AGAIN)})/r0/", r"\1/r1/", value)
    if isinstance(value, list):
        return [again(each) for each in value]
    return {name: again(each) for name, each in value.items()} if isinstance(value, dict) else value


def gone_back(site: Site) -> int:
    """A query whose search went back from REASONING to CAPTION and on from there to its answer."""
    filler = site.filler()
    job = filler.job(filler.scenes(range(1)), policy={"candidates": 3, "fan_out": "together"})
    filler.run(job)
    calls, queries = Call.__table__, Query.__table__
    with site.db.write() as conn:
        for row in conn.execute(select(calls).order_by(calls.c.id)).mappings().all():
            if row["stage"] in AGAIN:
                copy = {name: value for name, value in row.items() if name != "id"}
                copy |= {"key": again(row["key"]), "round": 1, "request": again(row["request"])}
                conn.execute(insert(calls).values(**copy))
            elif row["stage"] == "conclusion":
                changed = update(calls).where(calls.c.id == row["id"])
                conn.execute(changed.values(request=again(row["request"])))
        query = conn.execute(select(queries)).one()
        assert query.status == "done"
        conn.execute(update(queries).values(path=again(query.path)))
    return int(query.id)


def test_what_was_given_up_stands_beside_what_replaced_it(site: Site):
    query = gone_back(site)
    page = site.get(f"/queries/{query}").text
    check_html(page)
    assert page.count("kept until the search went back to caption") == 4  # two cards, two leaves
    assert "<span>retraced</span>" in page
    caption = page[page.index('id="stage-caption"') : page.index('id="stage-reasoning"')]
    assert caption.index("Round 2") < caption.index("c-kept") < caption.index("Round 1") < caption.index("c-retraced")
    assert re.search(r'id="caption-r1-\d', page)
    assert "caption, round 2" in page
    document = page[page.index('class="document"') : page.index('id="stages"')]
    assert document.count('class="kept-text"') == 3


def test_both_ways_hang_in_the_tree_where_they_part(site: Site):
    page = site.get(f"/queries/{gone_back(site)}").text
    tree = page[page.index('class="tree"') : page.index('id="stages"')]
    branches = re.findall(r'id="branch-([a-z0-9-]+)"', tree)
    assert branches == ["summary", "caption", "reasoning", "caption-r1", "reasoning-r1", "conclusion"]
    assert tree.index("c-retraced") < tree.index('id="branch-caption-r1"')


def test_a_match_of_the_second_round_has_its_own_address(site: Site):
    query = gone_back(site)
    links = re.findall(rf"/queries/{query}/verdicts/((?:caption|reasoning)-r1/0)", site.get(f"/queries/{query}").text)
    assert links
    answer = site.get(f"/queries/{query}/verdicts/{links[0]}")
    assert answer.status_code == 200
    assert "round 2:" in answer.text
    assert site.get(f"/queries/{query}/verdicts/caption-r9/0").status_code == 404
