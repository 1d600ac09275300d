"""Draws a scene: ray-cast solids under one lamp, with highlights and soft shadows.

Each solid is cast once per shape, size, material and rotation into a small sprite (how bright the surface is,
how much of the lamp it mirrors, how much of the pixel it covers); a scene is then a handful of tinted pastes,
about a millisecond, so that training can draw its images as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from training.scenes.world import Scene, Thing

PIXELS = 192
"""Width and height of a rendered image."""
CELL = PIXELS // 3
"""Pixels of a cell of the floor."""
REACH: dict[str, float] = {"tiny": 14.5, "large": 25.0}
"""Half the width of a thing, in pixels."""
TURNS = 4
"""Rotations that are rendered."""
OVERSAMPLE = 3
"""Rays per pixel and axis."""

RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.16, 0.16),
    "green": (0.16, 0.58, 0.22),
    "blue": (0.16, 0.32, 0.84),
    "yellow": (0.94, 0.80, 0.16),
    "purple": (0.55, 0.20, 0.70),
    "gray": (0.46, 0.47, 0.49),
}

Plane = NDArray[np.float32]

_TILT = np.deg2rad(38.0)
"""How far the camera looks down."""
_EYE = np.array([0.0, -np.cos(_TILT), np.sin(_TILT)])
"""Direction from the scene to the camera; x is right, y away from the camera, z up."""
_RIGHT = np.array([1.0, 0.0, 0.0])
_UP = np.cross(_EYE, _RIGHT)
_LAMP = np.array([-0.45, -0.45, 0.77])
_HALF = (_LAMP + _EYE) / np.linalg.norm(_LAMP + _EYE)


@dataclass(frozen=True, slots=True)
class Sprite:
    """Square planes of one solid, centred on its middle: values 0 to 1, coverage `alpha`."""

    alpha: Plane
    diffuse: Plane
    gloss: Plane


def render(scene: Scene) -> NDArray[np.uint8]:
    """The image of a scene, RGB of shape (PIXELS, PIXELS, 3)."""
    image = _floor().copy()
    image *= scene.floor
    for thing in scene.things:
        _paste_shadow(image, thing)
    for thing in scene.things:
        _paste(image, thing)
    pixels: NDArray[np.uint8] = np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return pixels


def _middle(thing: Thing) -> tuple[int, int]:
    """Pixel column and row of the middle of a thing; the shift keeps it within its cell."""
    room = CELL / 2 - REACH[thing.size] * 1.18 - 1.0
    column = (thing.column + 0.5) * CELL + thing.shift[0] * room
    row = (thing.row + 0.5) * CELL + thing.shift[1] * room
    return round(column), round(row)


def _window(thing: Thing, plane: Plane, right: int = 0, down: int = 0) -> tuple[slice, slice, slice, slice]:
    """Where a square plane falls on the image (rows, columns) and which part of it is inside (rows, columns)."""
    column, row = _middle(thing)
    half = plane.shape[0] // 2
    top, left = row + down - half, column + right - half
    rows = slice(max(top, 0), min(top + plane.shape[0], PIXELS))
    columns = slice(max(left, 0), min(left + plane.shape[1], PIXELS))
    return (
        rows,
        columns,
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )


def _paste(image: Plane, thing: Thing) -> None:
    sprite = _sprite(thing.shape, thing.size, thing.material, thing.turn % TURNS)
    rows, columns, inner_rows, inner_columns = _window(thing, sprite.alpha)
    color = np.asarray(RGB[thing.color], dtype=np.float32) * np.float32(thing.light)
    diffuse = sprite.diffuse[inner_rows, inner_columns, None]
    gloss = sprite.gloss[inner_rows, inner_columns, None]
    alpha = sprite.alpha[inner_rows, inner_columns, None]
    lit = diffuse * color + gloss
    patch = image[rows, columns]
    patch += alpha * (lit - patch)


def _paste_shadow(image: Plane, thing: Thing) -> None:
    shadow = _shadow(thing.size)
    reach = REACH[thing.size]
    rows, columns, inner_rows, inner_columns = _window(thing, shadow, round(reach * 0.35), round(reach * 0.45))
    image[rows, columns] *= 1.0 - 0.5 * shadow[inner_rows, inner_columns, None]


@cache
def _floor() -> Plane:
    """A warm floor, brighter where the lamp is."""
    rows, columns = np.mgrid[0:PIXELS, 0:PIXELS] / (PIXELS - 1)
    light = 1.04 - 0.10 * rows - 0.06 * columns
    floor: Plane = (light[..., None] * np.array([1.0, 0.985, 0.955])).astype(np.float32)
    return floor


@cache
def _shadow(size: str) -> Plane:
    """A soft ellipse on the floor."""
    reach = REACH[size]
    half = int(reach * 1.7)
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1] / reach
    distance = np.sqrt((columns / 1.15) ** 2 + (rows / 0.8) ** 2)
    soft: Plane = np.clip(1.45 - distance, 0.0, 1.0).astype(np.float32) ** 2
    return soft


@cache
def _sprite(shape: str, size: str, material: str, turn: int) -> Sprite:
    reach = REACH[size]
    half = int(reach * 1.5) + 1
    side = (2 * half + 1) * OVERSAMPLE
    steps = ((np.arange(side) + 0.5) / OVERSAMPLE - half - 0.5) / reach
    across, down = np.meshgrid(steps, steps)
    origin = across[..., None] * _RIGHT - down[..., None] * _UP + 10.0 * _EYE
    hit, normal = _CAST[shape](origin, turn)
    lambert = np.clip(normal @ _LAMP, 0.0, 1.0)
    mirror = np.clip(normal @ _HALF, 0.0, 1.0)
    if material == "shiny":
        window = np.exp(-(((across + 0.55 * down + 0.30) / 0.17) ** 2)) * (shape != "ball")
        diffuse, gloss = 0.26 + 0.66 * lambert, 0.95 * mirror**30 + 0.55 * window
    else:
        diffuse, gloss = 0.46 + 0.56 * lambert, np.zeros_like(lambert)
    weight = np.maximum(_shrink(hit), 1e-6)
    return Sprite(
        alpha=_shrink(hit).astype(np.float32),
        diffuse=(_shrink(diffuse * hit) / weight).astype(np.float32),
        gloss=(_shrink(gloss * hit) / weight).astype(np.float32),
    )


def _shrink(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    side = plane.shape[0] // OVERSAMPLE
    small: NDArray[np.float64] = plane.reshape(side, OVERSAMPLE, side, OVERSAMPLE).mean(axis=(1, 3))
    return small


Cast = tuple[NDArray[np.float64], NDArray[np.float64]]
"""For every ray: 1 where it hits, and the outward normal there."""


def _ball(origin: NDArray[np.float64], turn: int) -> Cast:
    along = origin @ _EYE
    inside = 1.0 - (np.sum(origin**2, axis=-1) - along**2)
    depth = along - np.sqrt(np.maximum(inside, 0.0))
    return (inside > 0).astype(float), origin - depth[..., None] * _EYE


def _cube(origin: NDArray[np.float64], turn: int) -> Cast:
    angle = np.deg2rad(12.0 + 90.0 * turn / TURNS)
    spin = np.array([[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    start, ray = origin @ spin.T, -(spin @ _EYE)
    edge = 0.80
    with np.errstate(divide="ignore"):
        near = (-np.sign(ray) * edge - start) / ray
        far = (np.sign(ray) * edge - start) / ray
    enter = near.max(axis=-1)
    axis = near.argmax(axis=-1)
    normal = np.eye(3)[axis] * -np.sign(ray)
    return (enter < far.min(axis=-1)).astype(float), normal @ spin


def _cylinder(origin: NDArray[np.float64], turn: int) -> Cast:
    radius, edge, ray = 0.60, 0.92, -_EYE
    a = ray[0] ** 2 + ray[1] ** 2
    b = origin[..., 0] * ray[0] + origin[..., 1] * ray[1]
    inside = b**2 - a * (origin[..., 0] ** 2 + origin[..., 1] ** 2 - radius**2)
    depth = (-b - np.sqrt(np.maximum(inside, 0.0))) / a
    point = origin + depth[..., None] * ray
    side = (inside > 0) & (np.abs(point[..., 2]) <= edge)
    cap = origin + ((edge - origin[..., 2]) / ray[2])[..., None] * ray
    top = ~side & (cap[..., 0] ** 2 + cap[..., 1] ** 2 <= radius**2)
    normal = np.where(
        top[..., None], np.array([0.0, 0.0, 1.0]), np.stack([point[..., 0], point[..., 1], 0 * b], -1) / radius
    )
    return (side | top).astype(float), normal


_CAST = {"ball": _ball, "cube": _cube, "cylinder": _cylinder}
