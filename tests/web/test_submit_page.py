"""Submitting from the page: checked and planned first, then submitted as planned."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.intake.ingest import ingest
from orchestrator.schedules.define import Author, DatasetDefinition, put_dataset
from orchestrator.service import new_id
from orchestrator.web import uploads
from storage import jobs, questions
from storage.search import Terms
from tests.web.conftest import SAME_ORIGIN, Site, site_over


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


GOOD = lines(*({"custom_id": f"q{n}", "question": "What?", "images": [picture()]} for n in range(3)))
BAD = lines(
    {"custom_id": "a", "question": "What?", "images": [picture()]},
    {"custom_id": "a", "qestion": "What?", "images": [picture()]},
    {"custom_id": "c", "question": "What?", "images": ["/etc/passwd"]},
)


def send(site: Site, address: str, fields: dict[str, str], data: bytes | None = None) -> Any:
    files = {"file": ("in put.jsonl", data)} if data is not None else None
    return site.http.post(address, data=fields, files=files, headers=SAME_ORIGIN, follow_redirects=False)


def file_of(page: str) -> str:
    found = re.search(r'name="file_id" value="([^"]+)"', page)
    assert found
    return found[1]


FIELDS = {"model": "scripted", "name": "from the page", "policy.candidates": "2", "policy.judge": "words"}


def test_labels_are_kept_shown_found_and_cloned(site: Site):
    fields = FIELDS | {"labels": 'night team=vision "site=Bern West"'}
    answer = send(site, "/new-job/run", fields, GOOD)
    job = answer.headers["location"].partition("?")[0].removeprefix("/jobs/")
    with site.db.read() as conn:
        row = jobs.get(conn, job)
    assert row is not None
    assert row.attributes == {"night": "", "team": "vision", "site": "Bern West"}
    for text, found in (("label:night", True), ('label:"site=Bern West"', True), ("label:team=ocr", False)):
        page = site.get("/jobs", params={"filter": text}).text
        assert (f"/jobs/{job}" in page) is found
    page = site.get(f"/jobs/{job}").text
    assert "by local" in page
    links = re.findall(r'class="label-chip" href="([^"]+)"', page)
    assert len(links) == 3
    assert all(f"/jobs/{job}" in site.get(link.replace("&amp;", "&")).text for link in links)
    assert "team=vision &#39;site=Bern West&#39;" in site.get(f"/new-job?like={job}").text


def test_a_bad_label_is_told_and_the_file_kept(site: Site):
    for labels, said in (('"open', "a quote is not closed"), ("a=1 a=2", "stands there twice"), ("=x", "is no label")):
        page = send(site, "/new-job", FIELDS | {"labels": labels}, GOOD)
        assert page.status_code == 400
        assert said in page.text
        assert file_of(page.text)


def test_a_good_file_is_planned_then_submitted(site: Site):
    page = send(site, "/new-job", FIELDS, GOOD)
    assert page.status_code == 200
    assert "in put.jsonl" in page.text
    assert "Submit 3 queries" in page.text
    assert "disabled" not in page.text
    assert '"candidates": 2' in page.text.replace("&#34;", '"')
    with site.db.read() as conn:
        assert jobs.in_status(conn, "validating") == []
    answer = send(site, "/new-job/run", {**FIELDS, "file_id": file_of(page.text)})
    assert answer.status_code == 303
    job = answer.headers["location"].split("/")[2].partition("?")[0]
    ingest(site.db, site.objects, site.settings, job, lambda: 1.0)
    with site.db.read() as conn:
        row = jobs.get(conn, job)
    assert (row.total, row.name, row.policy["candidates"], row.policy["judge"]) == (3, "from the page", 2, "words")
    assert "was submitted" in site.get(answer.headers["location"]).text
    assert "job.submit" in site.get("/audit").text
    again = send(site, "/new-job", FIELDS, GOOD).text
    assert "The same file was submitted with the same settings" in again
    cloned = site.get(f"/new-job?like={job}").text
    assert 'value="from the page"' in cloned
    assert "in put.jsonl" in cloned


def test_bad_lines_are_named_and_stop_the_button(site: Site):
    page = send(site, "/new-job", FIELDS, BAD).text
    assert "2 refused" in page
    assert "disabled" in page
    assert "duplicate_custom_id" in page
    assert "Did you mean &#34;question&#34;" in page
    assert "images[0]" in page
    skipping = send(site, "/new-job", {**FIELDS, "on_bad_line": "skip", "file_id": file_of(page)}).text
    assert "Submit 1 query" in skipping
    assert "disabled" not in skipping


FORMULA = '=HYPERLINK("http://evil.example")'
MANY_BAD = lines(*({"custom_id": f"q{n}", "question": "What?", "images": [picture()], FORMULA: n} for n in range(130)))


def test_every_error_is_in_the_download(site: Site):
    page = send(site, "/new-job", FIELDS, MANY_BAD).text
    assert "The first 20 of 130" in page
    fields = {**FIELDS, "file_id": file_of(page)}
    found = [json.loads(line) for line in send(site, "/new-job/errors?as=jsonl", fields).text.splitlines()]
    assert [error["line"] for error in found] == list(range(1, 131))
    assert {error["code"] for error in found} == {"unknown_field"}
    assert set(found[0]) == {"line", "field", "code", "message"}
    table = send(site, "/new-job/errors?as=csv", fields)
    assert table.headers["content-type"].startswith("text/csv")
    assert "attachment" in table.headers["content-disposition"]
    header, *rows = csv.reader(io.StringIO(table.text))
    assert header == ["line", "field", "code", "message"]
    assert len(rows) == 130
    assert {row[1][:2] for row in rows} == {"'="}, "a spreadsheet must not run it"
    refused = send(site, "/new-job/errors?as=csv", {**fields, "policy.candidates": "many"})
    assert refused.status_code == 400
    assert "write a whole number" in refused.text


def test_every_error_of_a_job_is_in_its_download(site: Site):
    page = send(site, "/new-job", FIELDS, MANY_BAD).text
    answer = send(site, "/new-job/run", {**FIELDS, "file_id": file_of(page)})
    job = answer.headers["location"].split("/")[2].partition("?")[0]
    ingest(site.db, site.objects, site.settings, job, lambda: 1.0)
    assert f"/jobs/{job}/errors?as=csv" in site.get(f"/jobs/{job}").text
    assert len(site.get(f"/jobs/{job}/errors").text.splitlines()) == 130
    assert len(site.get(f"/jobs/{job}/errors?as=csv").text.splitlines()) == 131


def test_an_input_that_breaks_off_is_told_in_the_download(site: Site):
    packed = gzip.compress(GOOD * 50)[:-20]
    page = send(site, "/new-job", FIELDS, packed).text
    found = send(site, "/new-job/errors", {**FIELDS, "file_id": file_of(page)}).text.splitlines()
    assert json.loads(found[-1])["code"] == "corrupt_compression"


def test_a_plan_shows_the_first_queries_as_they_would_be_asked(site: Site):
    asked = [
        {"custom_id": f"q{n}", "question": f"What is {n}?", "choices": ["a", "b"], "images": [picture()]}
        for n in range(7)
    ]
    asked[1]["policy"] = {"candidates": 7}
    page = send(site, "/new-job", FIELDS, lines({"custom_id": "bad"}, *asked)).text
    assert "The first 5 of 7 queries" in page
    assert re.findall(r"What is (\d)\?\nA\. a\nB\. b", page) == ["0", "1", "2", "3", "4"]
    assert "line 2 · 2 candidates of the summary" in page
    assert "7 candidates of the summary · <code>candidates: 7</code>" in page
    shown = re.findall(r'src="(/images/\w+\?size=small)"', page)
    assert len(shown) == 5
    assert site.get(shown[0]).headers["content-type"] == "image/webp"


def test_a_picture_with_broken_camera_notes_is_shown_as_it_lies(site: Site):
    notes, out = Image.Exif(), io.BytesIO()
    notes[0x0112] = 6
    Image.new("RGB", (64, 32), "red").save(out, "WEBP", exif=notes)
    broken = re.sub(rb"MM\x00\*|II\*\x00", b"MM\xff\xff", out.getvalue())
    assert broken != out.getvalue()
    data = "data:image/webp;base64," + base64.b64encode(broken).decode()
    page = send(site, "/new-job", FIELDS, lines({"custom_id": "q", "question": "What?", "images": [data]})).text
    (address,) = re.findall(r'src="(/images/\w+)\?size=small"', page)
    shown = Image.open(io.BytesIO(site.get(address).content))
    assert shown.width == 2 * shown.height


def test_a_plan_tells_when_it_cannot_tell(site: Site):
    page = send(site, "/new-job", FIELDS, GOOD).text
    assert "no worker serves this model now" in page
    filler = site.filler()
    filler.beat("gpu-0@node1:1:1", model="scripted", beat_at=time.time())
    assert "no job of this model with five queries or more has ended" in _fresh(site, GOOD)
    job = filler.job(filler.scenes(range(6)), policy={"candidates": 2, "judge": "words"}, model="scripted")
    filler.run(job)
    filler.end(job)
    assert "as 1 job of this policy took" in _fresh(site, GOOD)


def _fresh(site: Site, data: bytes) -> str:
    """The plan as a process sees it that has no snapshot yet."""
    again = site_over(site.db, site.objects, site.settings)
    return str(send(again, "/new-job", FIELDS, data).text)


def test_pasted_lines_will_do(site: Site):
    page = send(site, "/new-job", {**FIELDS, "lines": GOOD.decode()})
    assert "Submit 3 queries" in page.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"policy.candidates": "many"}, "write a whole number"),
        ({"policy.candidates": "900"}, "use 1 to 64"),
        ({"policy.temperature": "9"}, "greedy"),
        ({"priority": "soon"}, "Use one of"),
        ({"policy.strategy": "beem"}, "unknown strategy"),
    ],
)
def test_a_wrong_setting_is_named_and_the_form_kept(fields: dict[str, str], said: str, site: Site):
    page = send(site, "/new-job", {**FIELDS, **fields}, GOOD)
    assert page.status_code == 400
    assert said in page.text
    assert 'value="from the page"' in page.text
    assert file_of(page.text)


def test_nothing_chosen_is_said(site: Site):
    page = send(site, "/new-job", FIELDS)
    assert page.status_code == 400
    assert "choose a file" in page.text
    gone = send(site, "/new-job/run", {**FIELDS, "file_id": "file-none"})
    assert gone.status_code == 400


def test_a_plan_tells_engine_time_from_history(site: Site):
    filler = site.filler()
    job = filler.job(filler.scenes(range(2)), policy={"candidates": 2}, model="scripted")
    filler.run(job)
    page = send(site, "/new-job", {"model": "scripted", "policy.candidates": "2"}, GOOD).text
    assert "from 1 earlier job of this policy" in page


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(out, "PNG")
    return out.getvalue()


PARTS = [("images", (f"{name}.png", png(name), "image/png")) for name in ("red", "blue")]
"""A browser sends the bare names of the files that were chosen."""
NAMED = lines(
    *({"custom_id": name, "question": "What?", "images": [f"images/{name}.png"]} for name in ("red", "blue", "red2"))
).replace(b"red2.png", b"red.png")


def send_parts(site: Site, fields: dict[str, str], *parts: tuple[str, tuple[str, bytes, str]]) -> Any:
    return site.http.post("/new-job", data=fields, files=list(parts), headers=SAME_ORIGIN, follow_redirects=False)


def test_images_come_along_with_the_lines_that_name_them(site: Site):
    page = send_parts(site, FIELDS, ("file", ("q.jsonl", NAMED, "")), *PARTS).text
    assert "Submit 3 queries" in page
    assert "2 images sent along" in page
    answer = send(site, "/new-job/run", {**FIELDS, "file_id": file_of(page)})
    job = answer.headers["location"].split("/")[2].partition("?")[0]
    ingest(site.db, site.objects, site.settings, job, lambda: 1.0)
    with site.db.read() as conn:
        stored = {row.custom_id: row.body["images"] for row in questions.page(conn, job, Terms(), limit=9, after=0)}
    assert stored == {
        "red": [hashlib.sha256(png("red")).hexdigest()],
        "blue": [hashlib.sha256(png("blue")).hexdigest()],
        "red2": [hashlib.sha256(png("red")).hexdigest()],
    }


def test_images_may_come_after_the_lines_that_name_them(site: Site):
    page = send(site, "/new-job", FIELDS, NAMED).text
    assert "image_outside_roots" in page
    assert "Lines name images by path" in page
    again = send_parts(site, {**FIELDS, "file_id": file_of(page)}, *PARTS).text
    assert "Submit 3 queries" in again


def test_an_image_that_was_not_sent_is_named_with_its_line(site: Site):
    page = send_parts(site, FIELDS, ("file", ("q.jsonl", NAMED, "")), PARTS[0]).text
    assert "image_missing" in page
    assert "images/blue.png" in page
    assert "1 refused" in page


def test_a_table_is_read_as_the_command_line_reads_it(site: Site):
    table = b"id,prompt,image\n1,What is it?,red.png\n2,And this?,blue.png\n"
    page = send_parts(site, FIELDS, ("file", ("q.csv", table, "text/csv")), *PARTS).text
    assert "Submit 2 queries" in page
    assert "read as csv" in page
    assert "question from prompt" in page


def test_images_alone_need_one_question_for_all(site: Site):
    page = send_parts(site, FIELDS, *PARTS)
    assert page.status_code == 400
    assert "one question for all of them" in page.text
    page = send_parts(site, {**FIELDS, "question": "What is {name}?"}, *PARTS)
    assert "Submit 2 queries" in page.text


def test_two_images_of_one_name_and_names_that_lead_elsewhere(site: Site):
    page = send_parts(site, FIELDS, ("file", ("q.jsonl", NAMED, "")), PARTS[0], PARTS[0])
    assert "two images are called" in page.text
    outside = ("images", ("../../red.png", png("red"), "image/png"))
    page = send_parts(site, {**FIELDS, "question": "What?"}, outside)
    assert "Submit 1 query" in page.text


def test_a_named_dataset_can_be_picked(site: Site, tmp_path: Path):
    (tmp_path / "red.png").write_bytes(png("red"))
    (tmp_path / "set.csv").write_text("id,question,image\n1,What?,red.png\n")
    definition = DatasetDefinition.from_mapping(
        {"name": "reds", "source": {"kind": "path", "address": str(tmp_path / "set.csv")}}
    )
    with site.db.write() as conn:
        put_dataset(conn, definition, Author("default", ""), 1.0, new_id)
    assert "<option>reds</option>" in site.get("/new-job").text
    assert "Submit 1 query" in send(site, "/new-job", {**FIELDS, "dataset": "reds"}).text
    assert "there is no dataset" in send(site, "/new-job", {**FIELDS, "dataset": "greens"}).text


def test_more_images_than_a_form_takes_are_refused(site: Site):
    many = [("images", (f"{n}.png", b"x", "image/png")) for n in range(uploads.MAX_IMAGES + 2)]
    page = send_parts(site, FIELDS, *many)
    assert page.status_code == 400
    assert "Too many files" in page.text
