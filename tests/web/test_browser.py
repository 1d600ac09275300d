"""The pages in a real browser: what people do, what scripts do, and that nothing needs them.

Every flow leaves pictures for people to look at, where BROWSER_PICTURES names a folder for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from storage import bulk
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from tests.services.processes import free_port
from tests.waiting import wait_until
from tests.web import gallery
from tests.web.browser import PATIENCE_S, Browser, driver, session
from tests.web.conftest import NO_BROKER, Site, site_over
from tests.web.test_submit_page import BAD, GOOD, lines, picture

pytestmark = pytest.mark.timeout(900)
"""Each wait has a cap of its own, which tells what was waited for; this one is for a browser that hangs."""
AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"


@dataclass
class Served:
    """A site that browsers reach."""

    url: str
    site: Site
    jobs: dict[str, str]


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with driver(tmp_path_factory.mktemp("driver")) as client:
        yield client


@pytest.fixture
def browser(wire: httpx.Client, tmp_path: Path) -> Iterator[Browser]:
    """A fresh browser, which must not complain."""
    with session(wire, tmp_path) as made:
        yield made
        assert made.complaints() == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Served]:
    """The gallery behind a real server."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "stagebeam.db").write_bytes(migrated_sqlite.read_bytes())
    settings = Settings(data_dir=folder, broker_url=NO_BROKER, port=free_port())
    db, objects = open_database(settings.effective_database_url), open_objects(settings)
    jobs = gallery.fill(db, objects, time.time(), scale=0.12)
    about = {"action": "retry", "filter": "status:failed", "reason": "mended", "actor": "local", "counted": 9}
    with db.write() as conn:
        bulk.add(conn, id=1, job_id=jobs["labels"], **about, line=2, changed=1, created_at=time.time())
    site = site_over(db, objects, settings)
    config = uvicorn.Config(site.http.app, port=settings.port, log_config=None, lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    wait_until(lambda: running.started, PATIENCE_S)
    yield Served(f"http://127.0.0.1:{settings.port}", site, jobs)
    running.should_exit = True
    thread.join(10)
    db.close()


def follow(browser: Browser, address: str) -> None:
    """Open a page, and from then on have pages refresh as often as a person may choose."""
    browser.open(address)
    browser.run("localStorage.setItem('stagebeam.refresh', '2')")


def open_act(browser: Browser, action: str, reason: str) -> None:
    """Unfold an action, give the reason, do it."""
    form = f'form[action$="/{action}"]'
    browser.run("document.querySelector(arguments[0]).closest('details').open = true", form)
    browser.fill(f"{form} input[name=reason]", reason)
    browser.click(f"{form} button")


def test_submit_watch_and_look_at_the_thinking(browser: Browser, live: str, tmp_path: Path):
    (tmp_path / "input.jsonl").write_bytes(GOOD)
    follow(browser, f"{live}/")
    browser.click('nav a[href$="/jobs"]')
    browser.click("a.button.primary")
    browser.attach("input[type=file]", tmp_path / "input.jsonl")
    browser.fill("input[name=name]", "from a browser")
    browser.fill('input[name="policy.candidates"]', "3")
    browser.click(".submit-row button")
    browser.see("Submit 3 queries")
    browser.picture("submit-plan")
    browser.click("button[formaction]")
    browser.see("was submitted")
    browser.see("100 %", "#live")
    browser.see("completed", "#live")
    browser.picture("job-watched")
    browser.click("[data-rows] tbody a")
    browser.see("STAGES".title())
    for stage in ("summary", "caption", "reasoning", "conclusion"):
        assert browser.all(f"#stage-{stage} .card.c-kept")
    browser.picture("query-of-a-real-run")


def test_bad_lines_are_seen_before_anything_runs(browser: Browser, live: str, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_bytes(BAD)
    browser.open(f"{live}/new-job")
    browser.attach("input[type=file]", tmp_path / "bad.jsonl")
    browser.click(".submit-row button")
    browser.see("duplicate_custom_id")
    assert browser.run("return document.querySelector('button[formaction]').disabled")
    browser.find('button[formaction*="/new-job/errors"]')
    browser.picture("submit-bad-lines")


@pytest.mark.parametrize("name", ["published", "single", "words"])
def test_every_policy_shows_how_it_chose(name: str, browser: Browser, served: Served):
    browser.open(f"{served.url}/jobs/{served.jobs[name]}")
    browser.click("[data-rows] tbody a")
    browser.find("#stages .card")
    said = {"published": "each pair is shown once", "single": "nothing to choose from", "words": "Written verdicts"}
    assert said[name] in browser.text("#judge")
    assert browser.all("#answer .kept-text"), "the stages stand beside the image as a document"
    browser.picture(f"query-{name}")
    browser.width(400)
    assert browser.run("return document.documentElement.scrollWidth") <= 400
    browser.picture(f"query-{name}-narrow")


def test_the_judge_panel_explains_itself(browser: Browser, served: Served):
    browser.open(f"{served.url}/jobs/{served.jobs['labels']}")
    browser.click("[data-rows] tbody a")
    browser.find("#judge-caption .bracket")
    said = browser.text("#judge")
    assert "margin" in said
    assert "wins" in said
    assert "prefers" in said
    browser.picture("query-judge")
    browser.click("#judge-caption .match a")
    browser.find(".pair-texts article.won")
    assert "against" in browser.text("h1")
    browser.picture("verdict-side-by-side")
    browser.click(".crumbs a:last-child")
    browser.click("#raw details summary")
    browser.click("#raw details table a")
    browser.see("Prompt as sent")
    browser.picture("call-prompt")


def test_pause_resume_and_cancel(browser: Browser, served: Served):
    browser.open(f"{served.url}/jobs/{served.jobs['running']}")
    open_act(browser, "pause", "looking closer")
    browser.see("looking closer")
    browser.picture("job-paused")
    form = 'form[action$="/resume"]'
    browser.run("document.querySelector(arguments[0]).closest('details').open = true", form)
    browser.click(f"{form} button")
    browser.see("The job goes on")
    open_act(browser, "cancel", "wrong model")
    browser.see("nothing new starts")
    browser.picture("job-cancelling")
    open_act(browser, "cancel", "no time")
    browser.see("what still runs is given up")
    browser.open(f"{served.url}/audit")
    assert "wrong model" in browser.text()


def test_retry_and_bulk(browser: Browser, served: Served):
    job = served.jobs["faults"]
    browser.open(f"{served.url}/failures")
    browser.picture("failures")
    browser.open(f"{served.url}/jobs/{job}/queries?filter=status:failed")
    browser.click('a[href*="/bulk"]')
    browser.see("Nothing has been changed yet")
    browser.picture("bulk")
    browser.fill("form input[name=reason]", "mended")
    browser.click("form button")
    browser.see(" again.", "p.notice.ok")


def test_a_bulk_action_on_many_is_followed_to_its_end(browser: Browser, live: str, tmp_path: Path):
    """The orchestrator carries it out, and the page follows; nobody serves the model, so that the queries wait."""
    many = lines(*({"custom_id": f"q{n}", "question": "What?", "images": [picture()]} for n in range(2_500)))
    (tmp_path / "many.jsonl").write_bytes(many)
    follow(browser, f"{live}/new-job")
    browser.attach("input[type=file]", tmp_path / "many.jsonl")
    browser.fill("input[name=model]", "nobody")
    browser.click(".submit-row button")
    browser.click("button[formaction]:not([formaction*=errors])")
    browser.see("was submitted")
    job = browser.address.rpartition("/")[2].partition("?")[0]
    browser.see("no worker serves this model", "#live")
    browser.open(f"{live}/jobs/{job}/bulk?filter=status:waiting")
    browser.see("Nothing has been changed yet")
    browser.fill("form input[name=reason]", "wrong model")
    browser.click("form button")
    wait_until(lambda: browser.address.rpartition("/")[0].endswith("/bulk"), PATIENCE_S)
    browser.see("100 %", "#live")
    browser.see("done", "#live")
    browser.picture("bulk-done")
    assert "wrong model" in browser.text()
    browser.open(f"{live}/audit?subject={job}")
    assert "job.bulk_cancel.done" in browser.text()


def test_compare_two_jobs(browser: Browser, served: Served):
    browser.open(f"{served.url}/compare?a={served.jobs['single']}&b={served.jobs['labels']}")
    browser.see("Questions in both")
    browser.picture("compare")


def test_workers_and_a_paused_queue(browser: Browser, served: Served):
    browser.open(f"{served.url}/workers")
    open_act(browser, "send", "nothing moves")
    browser.see("go out again")
    browser.picture("workers")
    browser.open(f"{served.url}/")
    browser.see("was paused")
    browser.picture("overview")


def test_a_running_page_follows_without_losing_what_is_open(browser: Browser, served: Served):
    follow(browser, f"{served.url}/jobs?filter=is:active")
    for path in ("/", "/workers"):
        browser.open(served.url + path)
        browser.run("document.getElementById('live').dataset.mark = 'old'")
        wait_until(lambda: browser.run("return document.getElementById('live').dataset.mark !== 'old'"), PATIENCE_S)
        assert browser.text("#stale") == ""
    # Whoever is about to act is left alone; the page goes on when they are done.
    browser.run("document.querySelector('#live details.act').open = true")
    assert browser.run("return Boolean(busy())")
    browser.run("document.querySelector('#live details.act').open = false")
    assert not browser.run("return Boolean(busy())")


def test_keys_move_and_change_nothing(browser: Browser, served: Served):
    browser.open(f"{served.url}/jobs")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "filter"
    browser.press("\ue00c")
    browser.press("jj")
    assert browser.run("return document.querySelectorAll('tr.at').length") == 1
    browser.press("\ue007")
    wait_until(lambda: "/jobs/job_" in browser.address, PATIENCE_S)
    browser.click("[data-rows] tbody tr:nth-child(2) a")
    browser.see("2 of")
    browser.press("]")
    browser.see("3 of")
    browser.press("[")
    browser.see("2 of")


def test_log_in_and_out(browser: Browser, tmp_path: Path, migrated_sqlite: Path):
    (tmp_path / "stagebeam.db").write_bytes(migrated_sqlite.read_bytes())
    settings = Settings(data_dir=tmp_path, broker_url=NO_BROKER, port=free_port())
    db = open_database(settings.effective_database_url)
    site = site_over(db, open_objects(settings), settings)
    key = site.key("operator")
    running = uvicorn.Server(uvicorn.Config(site.http.app, port=settings.port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    wait_until(lambda: running.started, PATIENCE_S)
    browser.open(f"http://127.0.0.1:{settings.port}/jobs")
    browser.see("Log in")
    browser.picture("login")
    browser.fill("input[name=key]", key)
    browser.click("form button.primary")
    browser.see("operator key")
    assert browser.address.endswith("/jobs")
    browser.picture("empty-jobs")
    browser.click('form[action$="/logout"] button')
    browser.see("Log in")
    browser.open(f"http://127.0.0.1:{settings.port}/jobs")
    browser.see("Log in")
    running.should_exit = True
    thread.join(10)
    db.close()


PAGES = (
    "/",
    "/jobs",
    "/jobs/{labels}",
    "/jobs/{faults}",
    "/jobs/{labels}/queries",
    "/jobs/{labels}/judge",
    "/jobs/{labels}/bulk/1",
)
QUERIES = ("{labels}", "{labels}/verdicts/caption/0", "{labels}/diff/caption", "{published}", "{single}", "{words}")
MORE = ("/workers", "/failures", "/audit", "/new-job", "/compare", "/settings", "/schedules", "/datasets")


def addresses(served: Served) -> list[str]:
    from storage import questions
    from storage.search import Terms

    with served.site.db.read() as conn:
        first = {name: questions.page(conn, job, Terms(), limit=1)[0].id for name, job in served.jobs.items()}
    pages = [path.format(**served.jobs) for path in PAGES + MORE]
    return [served.url + path for path in pages + [f"/queries/{path.format(**first)}" for path in QUERIES]]


def test_pages_fit_a_narrow_screen(browser: Browser, served: Served):
    browser.width(400)
    for number, address in enumerate(addresses(served)):
        browser.open(address)
        assert browser.run("return document.documentElement.scrollWidth") <= 400, address
        browser.picture(f"narrow-{number:02d}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(scheme: str, browser: Browser, served: Served):
    """By axe-core: names, roles, contrast, order of headings."""
    if scheme == "dark":
        browser.dark()
    found = {}
    for number, address in enumerate(addresses(served)):
        browser.open(address)
        found[address] = violations(browser, scheme)
        browser.picture(f"{scheme}-{number:02d}-{address.rpartition('/')[2].partition('?')[0] or 'overview'}")
    assert {address: said for address, said in found.items() if said != "[]"} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_of_a_plan(scheme: str, browser: Browser, served: Served, tmp_path: Path):
    if scheme == "dark":
        browser.dark()
    for name, data in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.jsonl").write_bytes(data)
        browser.open(f"{served.url}/new-job")
        browser.attach("input[type=file]", tmp_path / f"{name}.jsonl")
        browser.click(".submit-row button")
        browser.find("#plan")
        browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert violations(browser, scheme) == "[]"
        browser.picture(f"plan-{name}-{scheme}")
        browser.width(400)
        assert browser.run("return document.documentElement.scrollWidth") <= 400
        browser.picture(f"plan-{name}-{scheme}-narrow")
        browser.width(1400)


RULES = {"light": "{}", "dark": "{runOnly: {type: 'rule', values: ['color-contrast']}}"}
"""Options of axe-core by scheme: the same document in other colours can break no other rule."""


def violations(browser: Browser, scheme: str) -> str:
    """What axe-core has against the page, as JSON."""
    browser.cdp("Runtime.evaluate", expression=AXE.read_text())
    ran = browser.cdp(
        "Runtime.evaluate",
        expression=f"axe.run(document, {{resultTypes: ['violations'], ...{RULES[scheme]}}}).then(r => JSON.stringify("
        "r.violations.map("
        "v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' + n.failureSummary)])))",
        awaitPromise=True,
    )
    return str(ran["result"]["value"])


def test_everything_works_without_script(wire: httpx.Client, served: Served, tmp_path: Path):
    with session(wire, tmp_path, script=False) as browser:
        browser.open(f"{served.url}/jobs")
        browser.click("[data-rows] tbody a")
        browser.see("Queries")
        browser.click(".actions details summary")
        browser.find(".popover")
        browser.click("[data-rows] tbody a")
        browser.see("Judge")
        browser.picture("without-script")
        browser.open(f"{served.url}/jobs/{served.jobs['paused']}")
        browser.click(".actions .act:nth-child(2) summary")
        browser.fill('form[action$="/cancel"] input[name=reason]', "no script needed")
        browser.click('form[action$="/cancel"] button')
        browser.see("being cancelled")


def test_hostile_text_stays_text(browser: Browser, served: Served):
    from tests.web.test_hostile import ALL, ATTACKS, HostileEngine

    filler = served.site.filler()
    filler.engine = HostileEngine()
    (line,) = filler.scenes(range(1))
    attacked = {**line, "custom_id": ATTACKS[0], "question": ALL, "choices": list(ATTACKS)}
    job = filler.job([attacked], name=ATTACKS[2], policy={"candidates": 2, "judge": "words"})
    filler.run(job)
    for address in (f"/jobs/{job}", f"/jobs/{job}/queries"):
        browser.open(served.url + address)
        assert browser.run("return window.name || document.title") is not None
    browser.click("[data-rows] tbody a")
    browser.see("[31m")
    assert browser.all("script:not([src])") == []
    assert browser.run("return document.querySelectorAll('img[src=x], svg[onload], [onerror]').length") == 0
    assert browser.run("return performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))")
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(wide) <= 0
    browser.picture("hostile")


def test_a_restart_changes_nothing(browser: Browser, served: Served):
    """Another process over the same store shows the same page: nothing lives in the server."""
    address = f"/jobs/{served.jobs['labels']}"
    before = served.site.get(address).text
    again = site_over(served.site.db, served.site.objects, served.site.settings)
    after = again.get(address).text
    browser.open(served.url + address)
    assert browser.text("h1") in before
    assert [line for line in before.splitlines() if "ago" not in line] == [
        line for line in after.splitlines() if "ago" not in line
    ]
