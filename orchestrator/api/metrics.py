"""Metrics in the text form of Prometheus, read from storage and the broker when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from orchestrator.api import reads
from orchestrator.api.access import Viewer
from orchestrator.api.documents import worker_state
from orchestrator.api.services import Services, Use

router = APIRouter(tags=["metrics"])

WORKERS_COUNTED = 10_000
LEVELS = frozenset({"rows", "row_limit", "cache_bytes", "concurrency_limit"})
"""What of an engine's counts goes up and down; all others only grow while its process lives."""


@router.get("/metrics")
def metrics(use: Use, _caller: Viewer) -> Response:
    """Jobs, queries and workers by state, and what each worker's engine counts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(use))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Snapshot(Collector):
    """Everything of one moment, read in one transaction: processes may come and go, the numbers stay whole."""

    def __init__(self, use: Services) -> None:
        self._use = use

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._use.now()
        with self._use.db.read() as conn:
            jobs = reads.jobs_by_status(conn)
            queries = reads.open_counts(conn)
            workers = reads.workers_page(conn, now, limit=WORKERS_COUNTED, after=None)
        yield _by_label("stagebeam_jobs", "Jobs by status.", "status", jobs)
        open_queries = {"waiting": queries.waiting, "running": queries.running}
        yield _by_label("stagebeam_open_queries", "Queries that have not ended.", "status", open_queries)
        states: dict[str, int] = {}
        slots: dict[str, int] = {}
        for row in workers:
            state = worker_state(row, now, self._use.settings.heartbeat_s)
            states[state] = states.get(state, 0) + 1
            if state == "ready":
                slots[row.model] = slots.get(row.model, 0) + row.slots
        yield _by_label("stagebeam_workers", "Workers by state.", "state", states)
        yield _by_label("stagebeam_slots", "Calls that ready workers can have in hand.", "model", slots)
        yield from _engines([row for row in workers if row.state != "stopped"])


def _by_label(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family


def _engines(workers: Sequence[Any]) -> Iterator[Metric]:
    """A family per count of the engines: as the workers' last heartbeats told."""
    told = [(row, (row.stats or {}).get("engine") or {}) for row in workers]
    for name in sorted({name for _, counts in told for name in counts}):
        full, text = f"stagebeam_engine_{name}", f"{name.replace('_', ' ').capitalize()} of the worker's engine."
        make = GaugeMetricFamily if name in LEVELS else CounterMetricFamily
        family = make(full, text, labels=["worker", "model"])
        for row, counts in told:
            if name in counts:
                family.add_metric([row.id, row.model], counts[name])
        yield family
