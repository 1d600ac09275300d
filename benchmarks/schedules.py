"""CPU time of the scheduler's tick over ten thousand schedules, as a share of one core.

    python -m benchmarks.schedules [COUNT]

The figures go to `benchmarks/results/schedules.json`.
Simulated seconds pass one at a time, each with one tick; only the time that the process computes is counted, and that
of all processes of the Postgres server beside it. Slots that are to run are decided and written; making their jobs is
work of its own and not part of a tick.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from orchestrator.cli.terminal.logs import set_up_logs
from orchestrator.schedules.clock import tick
from orchestrator.schedules.due import Plan, next_due
from orchestrator.schedules.options import Options
from orchestrator.schedules.rule import Rule
from storage import schema
from storage.database import Database, open_database
from storage.settings import Settings
from storage.tables import Dataset, Schedule
from tests.services.postgres import private_postgres

RESULT = Path(__file__).parent / "results" / "schedules.json"
START = 1_795_435_200.0
"""2026-11-23 12:00 UTC."""
SECONDS = 300
"""Simulated for each kind of load."""
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
COUNT = 10_000


def nightly(rng: random.Random) -> str:
    return f"{rng.randrange(60)} {rng.randrange(24)} * * *"


def hourly(rng: random.Random) -> str:
    return f"{rng.randrange(60)} * * * *"


def five_minutely(_rng: random.Random) -> str:
    return "*/5 * * * *"


def minutely(_rng: random.Random) -> str:
    return "* * * * *"


def filled(database: Database, count: int, expression: object) -> None:
    """Make `count` schedules of one kind, all decided up to the start."""
    rng = random.Random(7)
    options = Options()
    rows = []
    for number in range(count):
        rule = Rule.from_mapping({"kind": "cron", "cron": expression(rng), "zone": rng.choice(ZONES)})  # type: ignore[operator]
        rows.append(
            {
                "id": f"schedule_{number:06d}",
                "project_id": "default",
                "name": f"s{number}",
                "dataset_id": "d",
                "rule": rule.to_mapping(),
                "options": options.to_mapping(),
                "owner": "bench",
                "cursor_at": START,
                "next_at": next_due(Plan(rule=rule, options=options), START),
                "created_at": START,
                "updated_at": START,
            }
        )
    source = {"source": {}, "mapping": {}, "policy": {}, "model": "m", "identity": []}
    dataset = {"id": "d", "project_id": "default", "name": "d", "created_at": START, "updated_at": START}
    with database.write() as conn:
        conn.execute(insert(Dataset.__table__), {**dataset, **source})
        conn.execute(insert(Schedule.__table__), rows)


def measure(database: Database, name: str) -> dict[str, Any]:
    """Print and return what ticking costs under one kind of load."""
    longest, decided = 0.0, 0
    served, began = server_time(database), time.process_time()
    for second in range(1, SECONDS + 1):
        before = time.process_time()
        decided += tick(database, START + second)
        longest = max(longest, time.process_time() - before)
    share = (time.process_time() - began) / SECONDS
    of_server = (server_time(database) - served) / SECONDS
    print(
        f"{database.dialect:<11} {name:<30} {decided / SECONDS:6.1f} slots/s   {100 * share:5.2f} % of one "
        f"core, server {100 * of_server:5.2f} %   longest tick {1000 * longest:7.1f} ms"
    )
    return {
        "database": database.dialect,
        "load": name,
        "slots_per_s": round(decided / SECONDS, 1),
        "share_of_core": round(share, 5),
        "server_share_of_core": round(of_server, 5),
        "longest_tick_ms": round(1000 * longest, 1),
    }


def server_time(database: Database) -> float:
    """Seconds that the processes of the database server have computed; 0.0 for SQLite, which is part of this one."""
    if database.dialect != "postgresql":
        return 0.0
    with database.read() as conn:
        pids = list(conn.scalars(text("SELECT pid FROM pg_stat_activity")))
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print and write the result."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    set_up_logs(Settings(log_level="error"), "bench")
    print(f"{count} schedules, {SECONDS} simulated seconds each")
    loads = (
        ("nightly, spread over the day", nightly),
        ("hourly, spread over the hour", hourly),
        ("every 5 minutes, all at once", five_minutely),
        ("every minute, all at once", minutely),
    )
    found: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    found |= {"schedules": count, "simulated_s": SECONDS, "ticking": []}
    with tempfile.TemporaryDirectory() as folder, private_postgres() as postgres:
        for number, (name, expression) in enumerate(loads):
            embedded = f"sqlite:///{folder}/{number}.db"
            schema.upgrade(embedded)
            for url in (embedded, postgres.url(postgres.create())):
                database = open_database(url)
                filled(database, count, expression)
                found["ticking"].append(measure(database, name))
                database.close()
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
