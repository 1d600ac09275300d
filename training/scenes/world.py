"""What a scene is: a few things on a floor, and how one is drawn at random from a seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from reasoning.errors import BadInput, nearest

Level = Literal["easy", "medium", "hard"]
Split = Literal["train", "judge", "valid", "test"]

SIZES: tuple[str, ...] = ("tiny", "large")
MATERIALS: tuple[str, ...] = ("shiny", "matte")
COLORS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "gray")
SHAPES: tuple[str, ...] = ("cube", "ball", "cylinder")
PLACES: tuple[str, ...] = (
    *("top-left", "top", "top-right"),
    *("left", "center", "right"),
    *("bottom-left", "bottom", "bottom-right"),
)
"""The nine cells of the floor in reading order; a scene has at most one thing in a cell."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {"size": SIZES, "material": MATERIALS, "color": COLORS, "shape": SHAPES}
"""Attribute names in the order in which they are spoken, with their values."""

THINGS: dict[Level, tuple[int, int]] = {"easy": (2, 3), "medium": (3, 5), "hard": (6, 8)}
"""Fewest and most things in a scene of a level."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. `shift`, `turn` and `light` vary its looks and are never asked about."""

    size: str
    material: str
    color: str
    shape: str
    place: int
    """Index into `PLACES`."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Offset from the middle of its cell, right and down, each from -1 to 1."""
    turn: int = 0
    """Which of the rendered rotations it shows."""
    light: float = 1.0
    """Factor on its brightness."""

    @property
    def row(self) -> int:
        """0 at the back (top of the image) to 2."""
        return self.place // 3

    @property
    def column(self) -> int:
        """0 at the left to 2."""
        return self.place % 3

    @property
    def words(self) -> str:
        """Its attributes in the spoken order, such as `tiny shiny red ball`."""
        return f"{self.size} {self.material} {self.color} {self.shape}"

    @property
    def name(self) -> str:
        """Its place, then its attributes."""
        return f"{PLACES[self.place]} {self.words}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in reading order of their places, on a floor of one brightness."""

    things: tuple[Thing, ...]
    floor: float = 0.86
    """Brightness of the floor, 0 to 1."""


def stream(split: Split, seed: int, index: int) -> np.random.Generator:
    """Random numbers of one row. Streams of different splits, seeds or rows never overlap.

    Raises:
        BadInput: unknown split, or a seed outside 0 to 2^63 - 1.
    """
    if split not in get_args(Split):
        raise BadInput(
            f'unknown split "{split}".{nearest(split, get_args(Split))}', code="invalid_value", field="split"
        )
    if not 0 <= seed < 2**63:
        raise BadInput(f"seed is {seed}; use 0 up to 2^63 - 1", code="invalid_value", field="seed")
    return np.random.default_rng([zlib.crc32(split.encode()), seed, index])


def draw(rng: np.random.Generator, fewest: int, most: int) -> Scene:
    """A scene of `fewest` to `most` things in different cells, all attributes uniform."""
    count = int(rng.integers(fewest, most + 1))
    places = sorted(rng.permutation(len(PLACES))[:count].tolist())
    picks = rng.random((count, 8)).tolist()
    return Scene(tuple(map(_thing, places, picks)), floor=0.80 + 0.12 * float(rng.random()))


def _thing(place: int, picks: list[float]) -> Thing:
    size, material, color, shape = (
        options[int(pick * len(options))] for options, pick in zip(ATTRIBUTES.values(), picks, strict=False)
    )
    return Thing(
        *(size, material, color, shape),
        place=place,
        shift=(2 * picks[4] - 1, 2 * picks[5] - 1),
        turn=int(picks[6] * 1000),
        light=0.9 + 0.2 * picks[7],
    )
