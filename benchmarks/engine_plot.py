"""A bar chart as plain SVG: queries per hour by contender, one group per setting, logarithmic."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, FLOOR = 1000, 420, 70, 50, 330
COLOURS = {"sequential": "#b0584f", "batched": "#c9a24b", "engine": "#2f6f8f", "service": "#79a9bd"}
LABELS = {
    "sequential": "published algorithm, one call at a time",
    "batched": "generate with num_return_sequences",
    "engine": "this engine",
    "service": "this engine, the product's own search",
}


def plot(found: dict[str, Any], path: Path) -> None:
    """Write the chart of a result of `benchmarks.engine`."""
    cells = found["cells"]
    rates = [cell[name]["queries_per_hour"] for cell in cells for name in COLOURS if name in cell]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))

    def height(rate: float) -> float:
        return (math.log10(rate) - low) / (high - low) * (FLOOR - TOP)

    parts = [_title(found)]
    for power in range(low, high + 1):
        y = FLOOR - height(10**power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{10**power:,}</text>')
    step = (WIDTH - LEFT - 20) / len(cells)
    for place, cell in enumerate(cells):
        x = LEFT + place * step + 6
        bars = [name for name in COLOURS if name in cell]
        wide = (step - 12) / len(bars)
        for number, name in enumerate(bars):
            rate = cell[name]["queries_per_hour"]
            tall = height(rate)
            parts.append(
                f'<rect x="{x + number * wide:.1f}" y="{FLOOR - tall:.1f}" width="{wide - 1:.1f}" height="{tall:.1f}" '
                f'fill="{COLOURS[name]}"><title>{escape(LABELS[name])}: {rate:,.0f}</title></rect>'
            )
        middle = x + (step - 12) / 2
        for line, text in enumerate((f"N {cell['candidates']}", f"{cell['in_flight']} in flight", _judged(cell))):
            parts.append(f'<text x="{middle:.0f}" y="{FLOOR + 16 + 13 * line}" text-anchor="middle">{text}</text>')
    for place, name in enumerate(COLOURS):
        x = LEFT + place * 235
        parts.append(f'<rect x="{x}" y="{HEIGHT - 26}" width="10" height="10" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 14}" y="{HEIGHT - 17}">{escape(LABELS[name])}</text>')
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="10">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _judged(cell: dict[str, Any]) -> str:
    return "judged" if cell["judge"] else "no judge"


def _title(found: dict[str, Any]) -> str:
    where = found["environment"]
    text = (
        f"Queries per hour, {found['model']}, {found['dtype']}; {where['cpu']}, {where['threads']} threads, "
        f"torch {where['torch']}, transformers {where['transformers']}"
    )
    return f'<text x="{LEFT}" y="24" font-size="12">{escape(text)}</text>'
