from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from reasoning.errors import BadInput
from storage import access, rates
from storage.access import Caller, create_key, find_caller, revoke_key
from storage.database import Database
from storage.tables import ApiKey, AuditEntry


def test_the_door_is_open_on_loopback_until_the_first_key_and_never_again(database: Database):
    with database.write() as conn:
        for token in (None, "anything", ""):
            assert find_caller(conn, token, loopback=True) == Caller("default", "admin", None)
            assert find_caller(conn, token, loopback=False) is None
        key = create_key(conn, project_id="default", name="laptop", role="operator", now=1.0)
        assert find_caller(conn, key.token, loopback=False) == Caller("default", "operator", key.id)
        for token in (None, "anything", key.token + "x", key.token[:-1], key.id):
            assert find_caller(conn, token, loopback=True) is None
        assert revoke_key(conn, key.id, 2.0)
        assert not revoke_key(conn, key.id, 3.0)
        assert find_caller(conn, key.token, loopback=True) is None
        assert find_caller(conn, None, loopback=True) is None


def test_tokens_are_kept_nowhere(database: Database):
    with database.write() as conn:
        first = create_key(conn, project_id="default", name="a", role="viewer", now=1.0)
        second = create_key(conn, project_id="default", name="a", role="viewer", now=2.0)
        stored = conn.execute(select(ApiKey.__table__)).all()
    assert first.token != second.token
    assert len(first.token) > 40
    assert not any(secret in str(stored) for secret in (first.token, second.token))
    assert [row.hint for row in stored] == [first.token[:8], second.token[:8]]
    with database.read() as conn:
        listed = access.list_keys(conn, "default")
    assert [row.id for row in listed] == [first.id, second.id]
    assert not hasattr(listed[0], "token_hash")


def test_use_is_noted_once_a_minute(database: Database):
    with database.write() as conn:
        key = create_key(conn, project_id="default", name="a", role="viewer", now=1.0)
        used = []
        for now in (10.0, 40.0, 71.0):
            access.touch_key(conn, key.id, now)
            used.append(access.list_keys(conn)[0].last_used_at)
    assert used == [10.0, 10.0, 71.0]


def test_roles_contain_each_other():
    may = {role: [wanted for wanted in access.ROLES if Caller("p", role, None).may(wanted)] for role in access.ROLES}
    assert may == {
        "viewer": ["viewer"],
        "operator": ["viewer", "operator"],
        "admin": ["viewer", "operator", "admin"],
    }


def test_unknown_roles_and_projects_are_refused_with_the_nearest_name(database: Database):
    with database.write() as conn:
        with pytest.raises(BadInput, match='Did you mean "operator"'):
            create_key(conn, project_id="default", name="a", role="operater", now=1.0)
        with pytest.raises(BadInput, match='no project "other"'):
            create_key(conn, project_id="other", name="a", role="viewer", now=1.0)


def test_projects_are_made_once_and_have_limits(database: Database):
    with database.write() as conn:
        assert access.create_project(conn, "team", "The team", 1.0, {"queries_in_flight": 5})
        assert not access.create_project(conn, "team", "Another", 2.0)
        assert [row.id for row in access.list_projects(conn)] == ["default", "team"]
        project = access.get_project(conn, "team")
        assert project is not None
        assert (project.name, project.limits) == ("The team", {"queries_in_flight": 5})
        assert access.set_limits(conn, "team", None)
        assert not access.set_limits(conn, "nobody", {})
        key = create_key(conn, project_id="team", name="a", role="admin", now=1.0)
        assert find_caller(conn, key.token, loopback=True) == Caller("team", "admin", key.id)


def test_what_was_done_is_written_down(database: Database):
    with database.write() as conn:
        access.note(
            conn, project_id="default", actor="key_1", action="job.cancel", subject="job_1", now=1.0, reason="why"
        )
        row = conn.execute(select(AuditEntry.__table__)).one()
    assert (row.actor, row.action, row.subject, row.reason, row.details) == (
        "key_1",
        "job.cancel",
        "job_1",
        "why",
        None,
    )


def test_requests_may_come_at_once_and_then_steadily(database: Database):
    now = 1_800_000_000.25
    with database.write() as conn:
        assert [rates.take(conn, "default", 60, now) for _ in range(60)] == [0.0] * 60
        assert rates.take(conn, "default", 60, now) == pytest.approx(1.0, abs=1e-5)
        assert rates.take(conn, "default", 60, now + 0.5) == pytest.approx(0.5, abs=1e-5)
        assert rates.take(conn, "default", 60, now + 1.0) == 0.0
        assert rates.take(conn, "default", 60, now + 1.0) > 0.9
        assert rates.take(conn, "default", 60, now + 4000.0) == 0.0
        assert rates.take(conn, "default", 1, now + 8000.0) == 0.0
        assert rates.take(conn, "default", 1, now + 8000.0) == pytest.approx(60.0, abs=1e-5)


def test_requests_that_come_together_are_all_counted(database: Database):
    def one(_number: int) -> float:
        with database.write() as conn:
            return rates.take(conn, "default", 5, 1_800_000_000.0)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(20))).count(0.0) == 5
