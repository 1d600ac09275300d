"""Files whose time is over are removed: the row first, then the bytes that no other file shares."""

from __future__ import annotations

import structlog

from orchestrator import limits
from storage import files
from storage.database import Database
from storage.objects import ObjectStore

log = structlog.get_logger()

AT_ONCE = 200


def remove_expired(db: Database, objects: ObjectStore, now: float) -> int:
    """Remove expired files, a bounded number; how many. Dying half-way leaves bytes without a row, not the reverse."""
    with db.read() as conn:
        rows = files.expired(conn, now, AT_ONCE)
    for row in rows:
        with db.write() as conn:
            limits.lock_project(conn, row.project_id)
            files.delete(conn, row.project_id, row.id, now)
            shared = files.in_use(conn, [row.object_key])
        if not shared:
            objects.delete(row.object_key)
        log.info("A file expired.", action="file.expired", file_id=row.id)
    return len(rows)
