from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator.api.app import make_api
from orchestrator.web.schedules import PAGES
from storage.access import create_key
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from tests.schedules.bench import Bench
from tests.schedules.test_sources import PNG
from tests.web.counting import statements
from workers.app import make_app

RULE = {"kind": "cron", "cron": "0 3 * * *", "zone": "Europe/Berlin"}
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@dataclass
class Site:
    """API and pages over a bench whose dataset is a folder of images."""

    http: TestClient
    bench: Bench
    folder: Path

    def put(self, path: str, body: dict[str, Any], status: int = 200, **params: Any) -> Any:
        return self.answer(self.http.put(path, json=body, params=params), status)

    def post(self, path: str, body: Any = None, status: int = 200, **params: Any) -> Any:
        return self.answer(self.http.post(path, json=body, params=params), status)

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        return self.answer(self.http.get(path, params=params), status)

    def answer(self, response: Any, status: int) -> Any:
        assert response.status_code == status, response.text
        return response.json()

    def scenes(self) -> None:
        source = {"kind": "path", "address": str(self.folder)}
        self.put("/api/datasets/scenes", {"source": source, "question": "How many?", "policy": {"candidates": 2}})

    def nightly(self, **more: Any) -> Any:
        self.scenes()
        return self.put("/api/schedules/nightly", {"dataset": "scenes", "rule": RULE, **more})


@pytest.fixture
def site(sqlite_url: str, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(PNG)
    settings = Settings(data_dir=tmp_path / "data", broker_url="redis://127.0.0.1:1/0", model="scripted")
    database = open_database(sqlite_url)
    objects = open_objects(settings)
    api = make_api(settings, database, objects, make_app(settings))
    with TestClient(api, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as http:
        yield Site(http, Bench(database, objects, now=time.time()), folder)
    database.close()


def test_a_dataset_is_named_shown_previewed_and_removed(site: Site):
    planned = site.put("/api/datasets/x", {"source": {"kind": "path", "address": "/x"}}, dry_run=True)
    assert planned["name"] == "x"
    site.get("/api/datasets/x", 404)
    site.scenes()
    assert site.get("/api/datasets/scenes")["source"] == {
        "kind": "path",
        "address": str(site.folder),
        "format": "auto",
    }
    preview = site.get("/api/datasets/scenes/preview", rows=1)
    assert [row["custom_id"] for row in preview["rows"]] == ["a.png"]
    assert [row["name"] for row in site.get("/api/datasets")["data"]] == [site.bench.dataset_id, "scenes"]
    assert site.http.delete("/api/datasets/scenes").status_code == 200
    site.get("/api/datasets/scenes", 404)


def test_a_schedule_from_its_making_to_its_end(site: Site):
    made = site.nightly()
    assert made["sentence"] == "At 03:00 every day, Europe/Berlin time"
    assert len(made["next"]) == 5
    again = site.nightly(options={"catch_up": "none"})
    assert [change["field"] for change in again["changes"]] == ["options.catch_up"]
    assert (again["version"], again["state"]) == (2, "active")
    assert site.post("/api/schedules/nightly/pause", {"reason": "moving"})["paused_reason"] == "moving"
    assert site.get("/api/schedules")["data"][0]["state"] == "paused"
    assert not site.post("/api/schedules/nightly/resume", {"reason": "moved"})["paused"]
    assert site.answer(site.http.delete("/api/datasets/scenes"), 409)["error"]["code"] == "conflict"
    assert site.http.delete("/api/schedules/nightly").json()["deleted"]
    site.get("/api/schedules/nightly", 404)


def test_a_run_by_hand_is_foreseen_made_and_shown(site: Site):
    site.nightly()
    foreseen = site.get("/api/schedules/nightly/preview", rows=True)["run"]
    assert (foreseen["rows"], foreseen["computed"], foreseen["reused"]) == (2, 2, 0)
    slot_id = site.post("/api/schedules/nightly/run")["slot_id"]
    assert site.get(f"/api/schedules/nightly/slots/{slot_id}")["status"] == "pending"
    error = site.post("/api/schedules/nightly/run", status=409)["error"]
    assert error["code"] == "conflict"
    assert [slot["origin"] for slot in site.get("/api/schedules/nightly/slots")["data"]] == ["manual"]
    assert site.get(f"/api/schedules/nightly/slots/{slot_id}/flips")["data"] == []
    site.get("/api/schedules/nightly/slots/999", 404)


def test_a_preview_says_what_a_tick_would_do_at_a_time(site: Site):
    site.nightly()
    at = time.time() + 10 * 86400
    found = site.get("/api/schedules/nightly/preview", at=at)
    assert {entry["action"] for entry in found["would"]} <= {"missed", "run"}
    assert found["would_count"] == 10
    assert site.get("/api/schedules/nightly")["last"] == []


def test_rules_are_explained_before_anything_is_saved(site: Site):
    found = site.post("/api/schedules/rule", RULE)
    assert [entry["local"][-5:] for entry in found["next"]] == ["03:00"] * 5
    error = site.post("/api/schedules/rule", {"kind": "cron", "cron": "0 99 * * *"}, 400)["error"]
    assert (error["code"], error["param"]) == ("invalid_cron", "rule.cron")


def test_a_backfill_is_planned_before_it_is_made(site: Site):
    site.scenes()
    site.put("/api/schedules/hourly", {"dataset": "scenes", "rule": {"kind": "interval", "every_s": 3600}})
    span = {"start": time.time() - 5 * 3600, "end": time.time()}
    planned = site.post("/api/schedules/hourly/backfill", span, dry_run=True)
    assert (planned["count"], planned["made"]) == (5, False)
    assert site.post("/api/schedules/hourly/backfill", span)["made"]
    assert len(site.get("/api/schedules/hourly/slots")["data"]) == 5
    error = site.post("/api/schedules/hourly/backfill", {**span, "overlap": "skip"}, 422)["error"]
    assert error["param"] == "overlap"


def test_definitions_are_applied_as_one(site: Site):
    entry = {"source": {"kind": "path", "address": str(site.folder)}, "question": "?"}
    data = {"version": 1, "datasets": {"d": entry}, "schedules": {"s": {"dataset": "d", "rule": RULE}}}
    assert not site.post("/api/schedules/apply", data, dry_run=True)["applied"]
    site.get("/api/schedules/s", 404)
    assert [row["outcome"] for row in site.post("/api/schedules/apply", data)["data"]] == ["created", "created"]


def test_roles(site: Site):
    site.nightly()
    with site.bench.db.write() as conn:
        tokens = {
            role: create_key(conn, project_id="default", name=role, role=role, now=0.0).token
            for role in ("viewer", "operator", "admin")
        }

    def status(role: str, method: str, path: str, body: Any = None) -> int:
        headers = {"authorization": f"Bearer {tokens[role]}"}
        return site.http.request(method, path, json=body, headers=headers).status_code

    body = {"source": {"kind": "path", "address": str(site.folder)}, "question": "?"}
    assert status("viewer", "GET", "/api/schedules") == 200
    assert status("viewer", "POST", "/api/schedules/nightly/run") == 403
    assert status("viewer", "PUT", "/api/datasets/new", body) == 403
    assert status("operator", "PUT", "/api/datasets/new", body) == 400
    assert status("admin", "PUT", "/api/datasets/new", body) == 200
    assert status("operator", "POST", "/api/schedules/nightly/pause") == 200
    assert site.http.get("/api/schedules").status_code == 401


def filled(site: Site) -> dict[str, Any]:
    """A schedule with slots of every outcome; what the addresses of pages are made of."""
    bench = site.bench
    bench.schedule(alerts={"url": "http://127.0.0.1:9/", "secret": "whsec_c2VjcmV0"})
    bench.run()
    bench.lines = []
    bench.run()
    bench.tick(2 * 86400)
    slot = next(slot for slot in bench.slots() if slot.status == "done")
    return {"name": bench.row(slot.schedule_id).name, "slot_id": slot.id}


def test_every_page_answers_within_its_budget(site: Site):
    parts = filled(site)
    for page in PAGES:
        if page.method == "GET":
            with statements(site.bench.db) as seen:
                answer = site.http.get(page.path.format(**parts))
            assert answer.status_code == 200, (page.path, answer.text[:2000])
            assert len(seen) <= page.statements, (page.path, len(seen))
            assert "whsec_" not in answer.text.replace("whsec_ and base64", "")


def test_the_list_shows_rule_ticks_and_what_was_computed(site: Site):
    parts = filled(site)
    text = site.http.get("/schedules").text
    assert "Every 10 minutes" in text
    assert text.count("/slots/") == 11
    address = f"/schedules/{parts['name']}"
    assert "3 of 3 rows computed, 0 reused" in site.http.get(f"{address}?status=done").text
    assert "longer than the catch-up window of 1 hour" in site.http.get(address).text
    assert "3 of 3" not in site.http.get(f"{address}?status=missed").text


def form(site: Site, path: str, data: dict[str, str]) -> Any:
    return site.http.post(path, data=data, headers=SAME_ORIGIN, follow_redirects=False)


def test_a_dataset_and_a_schedule_are_made_on_pages(site: Site):
    dataset = {"name": "scenes", "kind": "path", "address": str(site.folder), "question": "How many?", "format": "auto"}
    assert form(site, "/new-dataset", dataset).status_code == 303
    fields = {"name": "weekly", "dataset": "scenes", "kind": "calendar", "times": "03:00", "days": "mon fri"}
    refused = form(site, "/new-schedule", {**fields, "overlap": "skip", "catch_up": "all"})
    assert refused.status_code == 400
    assert "contradict each other" in refused.text
    assert 'value="weekly"' in refused.text
    made = form(site, "/new-schedule", {**fields, "zone": "Europe/Berlin", "window_min": "30", "parquet": "yes"})
    assert made.headers["location"].endswith("/schedules/weekly?done=saved")
    found = site.get("/api/schedules/weekly")
    assert found["sentence"] == "At 03:00 on Monday and Friday, Europe/Berlin time"
    assert (found["options"]["catch_up_window_s"], found["options"]["parquet"]) == (1800, True)
    text = site.http.get("/new-schedule?name=weekly").text
    assert 'value="mon, fri"' in text
    assert form(site, "/schedules/weekly/pause", {"reason": ""}).status_code == 400
    assert form(site, "/schedules/weekly/pause", {"reason": "holidays"}).status_code == 303
    assert "holidays" in site.http.get("/schedules/weekly").text
    assert form(site, "/schedules/weekly/resume", {"reason": "back"}).status_code == 303
    assert form(site, "/schedules/weekly/run", {}).status_code == 303
    assert site.http.post("/schedules/weekly/run", data={}).status_code == 403


def test_a_backfill_on_the_page_is_shown_first(site: Site):
    site.scenes()
    site.put("/api/schedules/hourly", {"dataset": "scenes", "rule": {"kind": "interval", "every_s": 3600}})
    span = {"start": "2026-11-20T00:00", "end": "2026-11-22T12:00"}
    shown = site.http.get("/schedules/hourly/backfill", params=span).text
    assert "61 slots would run" in shown
    assert 'name="confirm"' in shown
    assert form(site, "/schedules/hourly/backfill", span).status_code == 400
    assert form(site, "/schedules/hourly/backfill", {**span, "confirm": "hourly"}).status_code == 303
    assert len(site.get("/api/schedules/hourly/slots")["data"]) == 61


@pytest.mark.parametrize("expression", ["61 * * * *", "", "<script>", "0 3 * * *\x1b[2J"])
def test_the_live_sentence_says_what_is_wrong(site: Site, expression: str):
    text = site.http.get("/schedule-rule", params={"kind": "cron", "cron": expression, "zone": "UTC"}).text
    assert 'class="problem"' in text
    assert "<script>" not in text
    assert "\x1b" not in text
