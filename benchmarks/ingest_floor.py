"""What a line with an image of its own cannot do without: processor time of each step alone, one thread, nothing else.

Parse the line, decode base64, hash, see that the picture is whole, write it beside others into a file. No database, no
validation, no threads. Two cores can take in no more lines a second than two seconds hold of this. `benchmarks.ingest`
puts it beside what ingest does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from orchestrator.intake.pictures import Limits, digest, from_data_uri, inspect
from storage.bundles import BUNDLE_BYTES

Item = TypeVar("Item")
Result = TypeVar("Result")

ROUND = 400
"""Lines measured in one go."""

LIMITS = Limits(max_bytes=20 * 2**20, max_pixels=64_000_000)


def floor(lines: Sequence[bytes], folder: Path) -> dict[str, Any]:
    """Microseconds of processor time a line, by step and in all; files are left in `folder`."""
    seconds: dict[str, float] = {}

    def each(step: str, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The best of some rounds of lines."""
        results: list[Result] = []
        rates = []
        for some in (items[at : at + ROUND] for at in range(0, len(items), ROUND)):
            start = time.process_time()
            results += [work(item) for item in some]
            rates.append((time.process_time() - start) / len(some))
        seconds[step] = min(rates)
        return results

    records = each("parse", orjson.loads, lines)
    uris = [record["body"]["messages"][0]["content"][1]["image_url"]["url"] for record in records]
    images = each("base64", lambda uri: from_data_uri(uri, LIMITS), uris)
    each("sha256", digest, images)
    each("whole", lambda image: inspect(image, LIMITS, ""), images)
    with (folder / "images").open("wb", buffering=BUNDLE_BYTES) as stream:
        each("write", stream.write, images)
    steps = {step: round(1e6 * spent, 1) for step, spent in seconds.items()}
    total = sum(seconds.values())
    return {"lines": len(lines), "cpu_us": steps, "cpu_us_in_all": round(1e6 * total, 1), "lines_per_core_s": 1 / total}
