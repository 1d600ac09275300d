"""What a line with an image of its own cannot do without: processor time of each step alone, one thread, nothing else.

Parse the line, decode base64, hash, see that the picture is whole, write a file and give it its name. No database, no
validation, no threads. Two cores can take in no more lines a second than two seconds hold of this. `benchmarks.ingest`
puts it beside what ingest does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from orchestrator.intake.pictures import Limits, digest, from_data_uri, inspect

Item = TypeVar("Item")
Result = TypeVar("Result")

ROUND = 400
"""Lines measured in one go."""

LIMITS = Limits(max_bytes=20 * 2**20, max_pixels=64_000_000)


def floor(lines: Sequence[bytes], folder: Path) -> dict[str, Any]:
    """Microseconds of processor time a line, by step and in all; files are left in `folder`."""
    seconds: dict[str, float] = {}

    def each(step: str, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The best of some rounds of lines: a disk where much was removed a moment ago makes files slowly."""
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
    hashes = each("sha256", digest, images)
    each("whole", lambda image: inspect(image, LIMITS, ""), images)
    each("write", lambda pair: write(folder / pair[0], pair[1]), list(zip(hashes, images, strict=True)))
    each("name", lambda sha256: os.replace(folder / sha256, folder / f"{sha256}.kept"), hashes)  # noqa: PTH105 - as ingest
    steps = {step: round(1e6 * spent, 1) for step, spent in seconds.items()}
    total = sum(seconds.values())
    return {"lines": len(lines), "cpu_us": steps, "cpu_us_in_all": round(1e6 * total, 1), "lines_per_core_s": 1 / total}


def write(path: Path, data: bytes) -> None:
    """One file in one call."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(number, data)
    os.close(number)
