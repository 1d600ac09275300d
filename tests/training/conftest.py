from __future__ import annotations

from pathlib import Path

import pytest

from training.scenes import write


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve easy questions with images."""
    folder = tmp_path_factory.mktemp("scenes")
    write(5, 12, "easy", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the demo's architecture, thirty-two wide and untrained."""
    from training.small.model import build_config, build_model, save
    from training.small.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer()
    save(build_model(build_config(tokenizer, width=32), seed=0), tokenizer, folder)
    return folder
