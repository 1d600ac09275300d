"""One typed model for Postgres and SQLite, a file per subject.

Times are seconds since the epoch (UTC, double); ids of things that users name are prefixed text
(`job_...`, `file_...`), ids of the many rows below them are integers. JSON columns hold plain JSON.
"""

from __future__ import annotations

from storage.tables.access import ApiKey, AuditEntry, Project, RequestRate
from storage.tables.base import Base
from storage.tables.bulk import BulkAction
from storage.tables.files import Blob, File
from storage.tables.fleet import Duty, QueueControl, Rollup, Worker
from storage.tables.outbox import Delivery
from storage.tables.schedules import Dataset, Schedule, Slot, StoredResult
from storage.tables.work import Call, Job, JobCounters, Query

__all__ = [
    "ApiKey",
    "AuditEntry",
    "Base",
    "Blob",
    "BulkAction",
    "Call",
    "Dataset",
    "Delivery",
    "Duty",
    "File",
    "Job",
    "JobCounters",
    "Project",
    "Query",
    "QueueControl",
    "RequestRate",
    "Rollup",
    "Schedule",
    "Slot",
    "StoredResult",
    "Worker",
]
