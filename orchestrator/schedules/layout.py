"""Where the results of a slot lie in the object store: a prefix made from a template."""

from __future__ import annotations

from datetime import UTC, datetime
from string import Formatter

from reasoning.errors import BadInput, nearest
from storage.objects import keys

ROOT = "results/"
"""What every prefix begins with, so that no template reaches into stagebeam's own keys."""
DEFAULT_PREFIX = "results/{schedule}/{date}/{time}-{slot}"
PARTS = ("schedule", "dataset", "date", "time", "slot")
"""Names that a template may use: `date` and `time` are those of the slot in UTC, `slot` is its number."""


def check_template(template: str) -> None:
    """Refuse a template that names something unknown, leaves its root, or gives two slots one prefix.

    Raises:
        BadInput: `invalid_prefix`.
    """
    try:
        used = [name for _, name, spec, conversion in Formatter().parse(template) if name is not None]
        plain = all(not spec and not conversion for _, _, spec, conversion in Formatter().parse(template))
    except ValueError as error:
        raise _bad(f'"{template[:80]}" cannot be read: {error}') from None
    for name in used:
        if name not in PARTS:
            raise _bad(f"{{{name[:40]}}} is unknown.{nearest(name[:40], PARTS)} Use {', '.join(PARTS)}")
    if not plain:
        raise _bad("names in braces take no format")
    if not template.startswith(ROOT):
        raise _bad(f'it must begin with "{ROOT}"')
    if "slot" not in used:
        raise _bad("it must use {slot}, or two runs would write to one place")
    keys.checked(fill(template, "a" * 64, "a" * 64, 0.0, 10**12))


def fill(template: str, schedule: str, dataset: str, due_at: float, slot_id: int) -> str:
    """The prefix of one slot, without a slash at its end."""
    due = datetime.fromtimestamp(due_at, UTC)
    values = {"schedule": schedule, "dataset": dataset, "date": f"{due:%Y-%m-%d}", "time": f"{due:%H%M%S}"}
    return template.format(**values, slot=slot_id).rstrip("/")


def parquet_key(schedule: str, due_at: float, slot_id: int) -> str:
    """Key of a slot's parquet file: partitioned by the slot's date, as readers of such folders expect."""
    due = datetime.fromtimestamp(due_at, UTC)
    return f"{ROOT}{schedule}/parquet/slot_date={due:%Y-%m-%d}/slot-{slot_id}.parquet"


def _bad(why: str) -> BadInput:
    return BadInput(f"output_prefix: {why}.", code="invalid_prefix", field="options.output_prefix")
