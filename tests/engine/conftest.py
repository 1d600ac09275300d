"""Small random checkpoints, pictures and a plain reference for what an engine must say."""

from __future__ import annotations

import gc
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.engine.reference import Reference
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.random_model import Geometry, make_mllama

TILES = Geometry(width=64, layers=5, cross=(1, 3), heads=4, kv_heads=2, tile=32, patch=8, tiles=4, context=400)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Encoded images of different shapes by name, so that some need one tile and some four."""
    draw = random.Random(0)
    found = {}
    for number, size in enumerate(((32, 32), (90, 30), (64, 64), (30, 70), (100, 100))):
        image = Image.new("RGB", size)
        image.putdata([tuple(draw.randrange(256) for _ in range(3)) for _ in range(size[0] * size[1])])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        found[f"picture{number}"] = buffer.getvalue()
    return found


@pytest.fixture(scope="session")
def mllama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mllama(tmp_path_factory.mktemp("mllama"), TILES)


@pytest.fixture(scope="session")
def reference(mllama: Path, pictures: dict[str, bytes]) -> Reference:
    return Reference(mllama, pictures)


@pytest.fixture(scope="session")
def engine(mllama: Path) -> Iterator[TransformersEngine]:
    """One engine with ample room, shared by tests that do not care what is cached."""
    engine = TransformersEngine(str(mllama), DeviceOptions(device="cpu", memory_mb=256))
    yield engine
    engine.close()
    gc.collect()
