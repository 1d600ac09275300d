from __future__ import annotations

from typing import Any

import pytest
import yaml
from sqlalchemy import select

from orchestrator.schedules.define import (
    HIDDEN,
    Author,
    ScheduleDefinition,
    put_schedule,
    shown_changes,
    without_secret,
)
from orchestrator.schedules.definitions import apply_definitions, parse_definitions, read_definitions
from reasoning.errors import BadInput
from storage import datasets, schedules
from storage.tables import AuditEntry
from tests.schedules.bench import Bench, new_id

TEXT = """
version: 1
datasets:
  scenes: {source: {kind: path, address: /data/scenes}, question: "How many?", policy: {candidates: 2}}
schedules:
  nightly:
    dataset: scenes
    rule: {kind: cron, cron: "0 3 * * *", zone: Europe/Berlin}
    options: {keep_days: 30, alerts: {url: "https://example.org/hook", secret: whsec_c2VjcmV0}}
"""
FILE = Author("default", "file:night.yaml", "night.yaml")
PERSON = Author("default", "key_me")


@pytest.fixture
def bench(sqlite_bench: Bench) -> Bench:
    return sqlite_bench


def apply(bench: Bench, text: str, author: Author = FILE) -> list[tuple[str, str, list[str]]]:
    with bench.db.write() as conn:
        done = apply_definitions(conn, parse_definitions(text.encode()), author, bench.now, new_id)
    return [(entry.name, entry.outcome, [change.field for change in entry.changes]) for entry in done]


def test_a_file_is_applied_and_applying_it_again_changes_nothing(bench: Bench):
    first = apply(bench, TEXT)
    assert [(name, outcome) for name, outcome, _ in first] == [("scenes", "created"), ("nightly", "created")]
    bench.now += 60
    assert apply(bench, TEXT) == [("scenes", "unchanged", []), ("nightly", "unchanged", [])]
    assert apply(bench, TEXT.replace("0 3", "0 4")) == [
        ("scenes", "unchanged", []),
        ("nightly", "changed", ["rule.cron"]),
    ]
    with bench.db.read() as conn:
        row = schedules.named(conn, "default", "nightly")
    assert (row.version, row.managed_by) == (2, "night.yaml")


def test_what_a_file_keeps_is_not_changed_by_hand(bench: Bench):
    apply(bench, TEXT)
    with pytest.raises(BadInput, match=r"night\.yaml") as refused:
        apply(bench, TEXT.replace("0 3", "0 4"), PERSON)
    assert refused.value.code == "managed_by_file"


def test_a_rehearsal_shows_the_differences_from_what_a_file_keeps(bench: Bench):
    apply(bench, TEXT)
    looking = Author("default", "key_me", only_shows=True)
    with bench.db.write() as conn:
        changed = parse_definitions(TEXT.replace("0 3", "0 4").encode())
        done = apply_definitions(conn, changed, looking, bench.now, new_id)
    assert [entry.outcome for entry in done] == ["unchanged", "changed"]
    assert {entry.kept_in for entry in done} == {"night.yaml"}
    assert [change.to_json() for change in done[1].changes] == [
        {"field": "rule.cron", "before": "0 3 * * *", "after": "0 4 * * *"}
    ]


def test_what_a_file_does_not_name_any_more_is_peoples_again(bench: Bench):
    apply(bench, TEXT)
    person = Author("default", "key_me")
    assert [outcome for _, outcome, _ in apply(bench, TEXT, person)] == ["unchanged", "unchanged"]
    assert apply(bench, "version: 1", Author("default", "file:other.yaml", "other.yaml")) == []
    assert apply(bench, "version: 1") == [
        ("scenes", "released", ["managed_by"]),
        ("nightly", "released", ["managed_by"]),
    ]
    assert apply(bench, TEXT.replace("0 3", "0 4"), person)[1] == ("nightly", "changed", ["rule.cron"])


def test_differences_tell_what_differs_and_never_a_secret(bench: Bench):
    apply(bench, TEXT)
    changed = TEXT.replace("whsec_c2VjcmV0", "whsec_b3RoZXI=").replace("Europe/Berlin", "Asia/Tokyo")
    with bench.db.write() as conn:
        done = apply_definitions(conn, parse_definitions(changed.encode()), FILE, bench.now, new_id)
    told = [change.to_json() for change in done[1].changes]
    assert told == [
        {"field": "rule.zone", "before": "Europe/Berlin", "after": "Asia/Tokyo"},
        {"field": "options", "before": HIDDEN, "after": HIDDEN},
    ]
    with bench.db.read() as conn:
        details = conn.scalars(select(AuditEntry.__table__.c.details)).all()
    assert "whsec_" not in str(details)


def test_one_bad_entry_applies_nothing_and_names_its_place(bench: Bench):
    with pytest.raises(BadInput, match=r"schedules\.nightly") as refused:
        apply(bench, TEXT.replace("0 3 * * *", "0 33 * * *"))
    assert refused.value.field == "schedules.nightly.rule.cron"
    with bench.db.read() as conn:
        assert datasets.named(conn, "default", "scenes") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 2", "version: 1"),
        ("version: 1\nschedule: {}", 'Did you mean "schedules"'),
        ("version: 1\ndatasets: []", "objects by name"),
        ("[1]", "must be an object"),
        ("version: 1\ndatasets: {a: &x {source: {}}, b: *x}", "aliases"),
        ("a: !!python/object/apply:os.system [id]", "no YAML"),
        ("a: [", "no YAML"),
        ("version: 1\ndatasets: {Big: {source: {kind: path, address: /x}}}", "lower-case"),
        ("version: 1\nschedules: {x: {dataset: nope, rule: {kind: interval, every_s: 60}}}", 'no dataset "nope"'),
        ("version: 1\ndatasets: {a: {source: {kind: sql, address: x, query: DELETE FROM q}}}", "one SELECT"),
        ("version: 1\ndatasets: {a: {sauce: 1}}", 'Did you mean "source"'),
        (
            "version: 1\ndatasets: {a: {source: {kind: path, address: /x}, columns: {quest: a}}}",
            'Did you mean "question"',
        ),
        ("version: 1\ndatasets: {a: {source: {kind: path, address: /x}, policy: {candidates: 0}}}", "candidates"),
        ("version: 1\ndatasets: {a: {source: {kind: path, address: /x}, identity: id}}", "identity"),
    ],
)
def test_files_that_mean_nothing_are_refused(bench: Bench, text: str, said: str):
    with pytest.raises(BadInput) as refused:
        apply(bench, text)
    assert said in refused.value.message


def test_a_file_that_cannot_be_read(tmp_path: Any):
    with pytest.raises(BadInput, match="No such file"):
        read_definitions(tmp_path / "none.yaml")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"version": 1}))
    assert read_definitions(tmp_path / "x.yaml") == {"version": 1}


def test_a_secret_is_never_shown_and_sending_it_back_keeps_it(bench: Bench):
    apply(bench, TEXT, PERSON)
    with bench.db.read() as conn:
        row = schedules.named(conn, "default", "nightly")
    seen = without_secret(row.options)
    assert seen["alerts"]["secret"] == HIDDEN
    data = {"name": "nightly", "dataset": "scenes", "rule": row.rule, "options": {**seen, "keep_days": 7}}
    with bench.db.write() as conn:
        found, changes = put_schedule(conn, ScheduleDefinition.from_mapping(data), PERSON, bench.now, new_id)
    assert [change.field for change in changes] == ["options"]
    assert [change.field for change in shown_changes(changes)] == ["options.keep_days"]
    assert found.options["alerts"]["secret"] == "whsec_c2VjcmV0"
