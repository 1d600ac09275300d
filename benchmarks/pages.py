"""How long pages take over a store of a million queries: `python -m benchmarks.pages [--queries N] [--url URL]`.

The figures go to `benchmarks/results/pages.json`. `--seed` and `--measure` do one half of the work on a database
that is kept, so that the half that is timed can have the machine to itself.

Seeds a fresh database by SQL: one job with most of the queries, thousands of small ones, a share of failures,
calls behind a sample of the queries, roll-ups and an audit trail. Then every page is asked for several
times, and the median is held against its budget. Without `--url` it uses SQLite in a temporary folder; the
budget is meant for Postgres.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from fastapi.testclient import TestClient
from sqlalchemy import Connection, func, insert, select, text

from orchestrator.api.app import make_api
from reasoning.policy import Policy
from storage import questions, schema
from storage.causes import caused
from storage.database import Database, open_database
from storage.objects import open_objects
from storage.rollups import STEPS
from storage.search import Terms
from storage.settings import Settings
from storage.tables import AuditEntry, BulkAction, Call, Job, JobCounters, Query, Rollup, Worker
from workers.app import make_app

RESULT = Path(__file__).parent / "results" / "pages.json"
BUDGET_MS = 100.0
BIG, SECOND = "job_big", "job_second"
ROUNDS = 7
SMALL_JOBS = 5_000
CALLED = 400
"""Queries with calls behind them, spread over the big job."""
ENTRIES = 200_000
POLICY = Policy()
STAGES = ("summary", "caption", "reasoning", "conclusion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--url", default="", help="an empty Postgres database; it is filled and left so")
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--seed", action="store_true", help="fill the database and stop")
    half.add_argument("--measure", action="store_true", help="the database is filled already")
    arguments = parser.parse_args()
    if (arguments.seed or arguments.measure) and not arguments.url:
        parser.error("--seed and --measure need --url: without it the database is gone at the end")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            data_dir=Path(folder), database_url=arguments.url, broker_url="redis://127.0.0.1:1/0", heartbeat_s=5
        )
        schema.upgrade(settings.effective_database_url)
        db = open_database(settings.effective_database_url)
        started = time.perf_counter()
        if not arguments.measure:
            fill(db, arguments.queries, time.time())
            print(f"{arguments.queries:,} queries seeded in {time.perf_counter() - started:.0f} s on {db.dialect}")
        slow = [] if arguments.seed else report(db, measure(db, settings))
        db.close()
    sys.exit(1 if slow and arguments.url else 0)


def report(db: Database, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the figures down, those of Postgres to the results; returns the pages over budget."""
    with db.read() as conn:
        queries = conn.execute(select(func.count()).select_from(Query.__table__)).scalar_one()
    for page in found:
        times = f"{page['median_ms']:8.1f} ms ({page['least_ms']} to {page['most_ms']}, cpu {page['cpu_ms']})"
        print(f"{times} {page['kB']:7.1f} kB  {page['page']}" + ("  OVER" if page["median_ms"] > BUDGET_MS else ""))
    if db.dialect == "postgresql":
        about = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
        document = {**about, "queries": queries, "budget_ms": BUDGET_MS, "rounds": ROUNDS, "pages": found}
        RESULT.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    return [page for page in found if page["median_ms"] > BUDGET_MS]


def fill(db: Database, queries: int, now: float) -> None:
    """Seed the store with two big jobs over the same questions, and many small ones."""
    big, second = BIG, SECOND
    with db.write() as conn:
        _jobs(conn, {big: queries * 7 // 10, second: queries * 2 // 10}, queries // 10, now)
        for job_id, count in ((big, queries * 7 // 10), (second, queries * 2 // 10)):
            _queries(conn, job_id, count, now)
        _small_queries(conn, queries // 10, now)
        _calls(conn, big, queries * 7 // 10, now)
        _rest(conn, now)
    if db.dialect == "postgresql":
        with db.write() as conn:
            conn.execute(text("ANALYZE"))


def _jobs(conn: Connection, large: dict[str, int], rest: int, now: float) -> None:
    columns = {"project_id": "default", "model": "demo", "policy": POLICY.to_mapping(), "policy_digest": POLICY.digest}
    jobs, counters = [], []
    sizes = {**large, **{f"job_{n:05d}": rest // SMALL_JOBS for n in range(SMALL_JOBS)}}
    for place, (job_id, count) in enumerate(sizes.items()):
        is_open = job_id in large
        failed = count // 100
        waiting, running = (count // 10, min(400, count // 50)) if is_open else (0, 0)
        jobs.append(
            {
                "id": job_id,
                "name": f"job number {place}",
                "status": "running" if is_open else "completed",
                "created_at": now - 60 * place,
                "started_at": now - 60 * place,
                "ended_at": None if is_open else now - 30 * place,
                "attributes": {"team": "vision", "nightly": ""} if place % 500 == 0 else None,
                **columns,
            }
        )
        counters.append(
            {
                "job_id": job_id,
                "total": count,
                "waiting": waiting,
                "running": running,
                "failed": failed,
                "done": count - failed - waiting - running,
                "kept_tokens": 300 * count,
                "discarded_tokens": 900 * count,
                "engine_seconds": 0.4 * count,
            }
        )
    conn.execute(insert(Job.__table__), jobs)
    conn.execute(insert(JobCounters.__table__), counters)


BODY = orjson.dumps(
    {"question": "How many circles are there?", "images": ["a" * 64], "choices": ["1", "2"], "answer": "B"}
).decode()
USAGE = orjson.dumps({"generated_tokens": 1200, "candidates": 16, "verdicts": 12}).decode()
ERRORS = [
    caused({"code": "context_overflow", "message": message, "stage": "reasoning", "attempts": 1})
    for message in ("the prompt has 9001 tokens", "the image has more patches than the model takes")
]
"""One that most failures have, and one that ten have."""
SERIES = {
    "postgresql": "SELECT n FROM generate_series(1, :count) AS s(n)",
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count) SELECT n FROM s",
}


def _queries(conn: Connection, job_id: str, count: int, now: float) -> None:
    running, waiting = min(400, count // 50), count // 10
    json = "CAST(:{} AS json)" if conn.dialect.name == "postgresql" else ":{}"
    statement = f"""
        INSERT INTO queries (job_id, line, custom_id, status, body, stage, answer, error, usage, retries, created_at,
            started_at, ended_at, format_ok)
        SELECT :job, n, 'q-' || n, st, {json.format("body")}, CASE WHEN st = 'waiting' THEN NULL ELSE 'reasoning' END,
            CASE WHEN st = 'done' THEN CASE WHEN n % 7 = 0 THEN 'A' ELSE 'B' END END,
            CASE WHEN st = 'failed' THEN CASE WHEN n % 70000 = 0 THEN {json.format("rare")} ELSE {json.format("error")}
                END END, {json.format("usage")}, 0, :now - 9000,
            CASE WHEN st = 'waiting' THEN NULL ELSE :now - 8000.0 * (:count - n) / :count - 2 END,
            CASE WHEN st IN ('done', 'failed') THEN :now - 8000.0 * (:count - n) / :count END, st = 'done'
        FROM (SELECT n, CASE WHEN n > :count - :waiting THEN 'waiting' WHEN n > :count - :waiting - :running
                THEN 'running' WHEN n % 100 = 0 THEN 'failed' ELSE 'done' END AS st
              FROM ({SERIES[conn.dialect.name]}) AS numbers) AS states"""
    error, rare = (orjson.dumps(each).decode() for each in ERRORS)
    values = {"job": job_id, "count": count, "now": now, "body": BODY, "usage": USAGE, "error": error, "rare": rare}
    conn.execute(text(statement), {**values, "waiting": waiting, "running": running})


def _small_queries(conn: Connection, count: int, now: float) -> None:
    json = "CAST(:{} AS json)" if conn.dialect.name == "postgresql" else ":{}"
    each = count // SMALL_JOBS
    number = "lpad((n / :each)::text, 5, '0')" if conn.dialect.name == "postgresql" else "printf('%05d', n / :each)"
    statement = f"""
        INSERT INTO queries (job_id, line, custom_id, status, body, answer, usage, retries, created_at, started_at,
            ended_at)
        SELECT 'job_' || {number}, n % :each + 1, 'q-' || n, 'done', {json.format("body")}, 'B',
            {json.format("usage")}, 0, :now - 500000, :now - 400000, :now - 60.0 * (n / :each)
        FROM (SELECT n - 1 AS n FROM ({SERIES[conn.dialect.name]}) AS numbers) AS shifted"""
    values = {"count": each * SMALL_JOBS, "each": each, "now": now, "body": BODY, "usage": USAGE}
    conn.execute(text(statement), values)


def _calls(conn: Connection, job_id: str, count: int, now: float) -> None:
    """The whole search behind a sample of queries."""
    lines = [1 + round(step * (count - 1) / (CALLED - 1)) for step in range(CALLED)]
    table = Query.__table__
    found = conn.execute(select(table.c.id).where(table.c.job_id == job_id, table.c.line.in_(lines))).scalars().all()
    rows = [row for query_id in found for row in _search(query_id, job_id, now)]
    for start in range(0, len(rows), 5_000):
        conn.execute(insert(Call.__table__), rows[start : start + 5_000])


def _search(query_id: int, job_id: str, now: float) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    path: list[list[object]] = []
    for place, stage in enumerate(STAGES):
        key = f"{stage}/r0/generate/0-3"
        texts = [f"<{stage.upper()}>{'some words of thought ' * 12}{n}</{stage.upper()}>" for n in range(4)]
        candidates = [
            {"index": n, "text": words, "tokens": 60, "finish": "stop", "token_ids": [], "seed": n}
            for n, words in enumerate(texts)
        ]
        base = {"query_id": query_id, "job_id": job_id, "stage": stage, "round": 0, "model": "demo", "status": "done"}
        begun = now - 8000 + place
        times = {"sent_at": begun, "started_at": begun, "ended_at": begun + 0.5, "worker": "gpu-0@n:1:1"}
        request = {"path": list(path), "indices": [0, 1, 2, 3], "attempt": 0, "candidates": [], "swap": False}
        usage = {"prompt_tokens": 900, "cached_tokens": 600, "generated_tokens": 240, "vision_calls": 1, "seconds": 0.5}
        same = {**base, **times, "usage": usage}
        rows.append({**same, "key": key, "kind": "generate", "request": request, "outcome": {"candidates": candidates}})
        for first, second in ((0, 1), (2, 3), (0, 2)):
            showings = [
                {
                    "order": [a, b],
                    "prompt_hash": "f" * 64,
                    "parse": "ok",
                    "choice": first,
                    "words": "",
                    "probabilities": [0.8, 0.2] if a == first else [0.3, 0.7],
                }
                for a, b in ((first, second), (second, first))
            ]
            pair = [[key, first], [key, second]]
            asked = {**request, "indices": [], "candidates": pair, "swap": True}
            name = f"{stage}/r0/compare/{first}v{second}"
            outcome = {"verdict": {"showings": showings}}
            rows.append({**same, "key": name, "kind": "compare", "request": asked, "outcome": outcome})
        path.append([key, 0])
    return rows


def _rest(conn: Connection, now: float) -> None:
    engine = {"kind": "transformers", "model": "demo", "revision": "1", "device": "cuda:0", "dtype": "bfloat16"}
    workers = [
        {
            "id": f"gpu-{n}@node:{n}:1",
            "model": "demo",
            "engine": engine,
            "slots": 64,
            "state": "ready",
            "version": "0.1.0",
            "started_at": now - 9999,
            "beat_at": now + 3600,
            "in_hand": [{"id": i, "query_id": i, "stage": "caption", "since": now} for i in range(64)],
        }
        for n in range(32)
    ]
    conn.execute(insert(Worker.__table__), workers)
    about = {"job_id": BIG, "action": "retry", "filter": "status:failed", "reason": "mended", "actor": "local"}
    conn.execute(insert(BulkAction.__table__), {**about, "counted": 7000, "line": 100_000, "created_at": now})
    histogram = [7] * STEPS
    buckets = [(now // 60 * 60 - 60 * n, 60) for n in range(2_880)] + [
        (now // 3600 * 3600 - 3600 * n, 3600) for n in range(2_000)
    ]
    base = {"model": "demo", "done": 100, "failed": 1, "calls": 2800, "tokens": 120_000}
    series = [
        {**base, "bucket": at, "width_s": w, "waiting_ms": histogram, "running_ms": histogram} for at, w in buckets
    ]
    conn.execute(insert(Rollup.__table__), series)
    entries = [
        {"project_id": "default", "at": now - n, "actor": "key_1", "action": "job.pause", "subject": "job_big"}
        for n in range(ENTRIES)
    ]
    for start in range(0, ENTRIES, 20_000):
        conn.execute(insert(AuditEntry.__table__), entries[start : start + 20_000])


def measure(db: Database, settings: Settings) -> list[dict[str, Any]]:
    """Ask for every page several times; the first round warms up and is counted in the worst alone."""
    big, second = BIG, SECOND
    with db.read() as conn:
        table = Call.__table__
        query = conn.execute(select(table.c.query_id).order_by(table.c.id).limit(1).offset(3200)).scalar_one()
        call = questions.calls(conn, query)[1].id
        some = questions.page(conn, big, Terms(), limit=1, after=350_000)
        deep = some[0].line if some else 1
    pages = [
        "/",
        "/jobs",
        "/jobs?filter=is:attention",
        "/jobs?filter=name:4999",
        "/jobs?filter=label:nightly",
        "/jobs?filter=label:team%3Dvision+is:ended",
        "/jobs?after=job_04000",
        "/jobs/job_04000/manifest",
        f"/jobs/{big}",
        f"/jobs/{big}/queries",
        f"/jobs/{big}/queries?after={deep}",
        f"/jobs/{big}/queries?filter=status:failed",
        f"/jobs/{big}/queries?filter=status:failed+error:context_overflow",
        *(f"/jobs/{big}/queries?filter=status:failed,expired+cause:{error['cause']}" for error in ERRORS),
        f"/jobs/{big}/queries?filter=q-123456",
        f"/jobs/{big}/judge",
        f"/jobs/{big}/bulk?filter=status:failed",
        f"/jobs/{big}/bulk/1",
        f"/queries/{query}",
        f"/queries/{query}?filter=status:done",
        f"/queries/{query}/raw",
        f"/queries/{query}/calls/{call}",
        f"/queries/{query}/verdicts/caption/0",
        f"/compare?a={big}&b={second}",
        f"/compare?a={big}&b={second}&after=100000",
        "/workers",
        "/failures",
        "/audit",
        "/schedules",
        "/datasets",
        "/new-job",
        "/settings",
    ]
    found = []
    now = [time.time()]
    api = make_api(settings, db, open_objects(settings), make_app(settings))
    object.__setattr__(api.state.services, "now", lambda: now[0])
    with TestClient(api, base_url="http://127.0.0.1:8000") as http:
        for page in pages:
            times, spent = [], []
            for _ in range(ROUNDS):
                now[0] += 2.5  # past the shared snapshot, so that its cost is counted in every round
                begun, worked = time.perf_counter(), time.process_time()
                answer = http.get(page)
                times.append(time.perf_counter() - begun)
                spent.append(time.process_time() - worked)
                assert answer.status_code == 200, (page, answer.status_code)
            shown = page.replace(str(query), "QUERY").replace(str(call), "CALL")
            found.append({"page": shown, **_figures(times, spent), "kB": round(len(answer.content) / 1000, 1)})
    return found


def _figures(times: list[float], spent: list[float]) -> dict[str, float]:
    """Wall times, and the processor time of the web process alone, which a busy machine falsifies less."""
    found = {"median_ms": statistics.median(times[1:]), "least_ms": min(times), "most_ms": max(times)}
    found["cpu_ms"] = statistics.median(spent[1:])
    return {name: round(seconds * 1000, 1) for name, seconds in found.items()}


if __name__ == "__main__":
    main()
