"""Pages of schedules and datasets: what runs when, what it came to, and the levers."""

from __future__ import annotations

from orchestrator.web.pages import Page
from orchestrator.web.schedules import backfill, compare, datasets, form, listing, slots

PAGES: tuple[Page, ...] = (
    Page("GET", "/schedules", "viewer", listing.show, "recurring runs: next, last, the last ten outcomes", 13),
    Page("GET", "/new-schedule", "operator", form.empty, "schedule: the form, empty or filled like one", 12),
    Page("POST", "/new-schedule", "operator", form.save, "schedule: save it", 24),
    Page("GET", "/schedule-rule", "viewer", form.rule, "a rule as a sentence, and its next five times", 9),
    Page("GET", "/schedules/{name}", "viewer", slots.show, "a schedule: what comes, what ran, and why not", 14),
    Page("POST", "/schedules/{name}/pause", "operator", slots.pause, "skip slots from now on", 16),
    Page("POST", "/schedules/{name}/resume", "operator", slots.resume, "run slots again", 16),
    Page("POST", "/schedules/{name}/run", "operator", slots.run, "run now", 14),
    Page("GET", "/schedules/{name}/backfill", "operator", backfill.plan, "slots of the past, planned", 14),
    Page("POST", "/schedules/{name}/backfill", "operator", backfill.run, "run slots of the past", 16),
    Page("GET", "/schedules/{name}/slots/{slot_id}", "viewer", compare.show, "a run against the one before", 14),
    Page("GET", "/datasets", "viewer", datasets.show, "named datasets", 11),
    Page("GET", "/new-dataset", "operator", datasets.form, "dataset: the form, empty or filled like one", 11),
    Page("POST", "/new-dataset", "operator", datasets.save, "dataset: save it", 14),
)
"""Statement budgets as in `orchestrator.web.routes`."""
