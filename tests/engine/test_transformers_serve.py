"""The remote engine against a real server: `transformers serve` with a small checkpoint."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reasoning.errors import ModelError
from tests.engine.reference import GREEDY, ask, choose, generate
from tests.waiting import wait_until
from workers.engine.protocol import Sampling
from workers.engine.registry import open_engine
from workers.engine.remote import RemoteEngine


@pytest.fixture
def served(mllama: Path, tmp_path: Path) -> Iterator[str]:
    """Base address of a server that holds the small Mllama."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(mllama)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: server.poll() is not None or answers(port), 50.0, what="transformers serve answers")
        assert server.poll() is None, (tmp_path / "log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(10)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_real_server(served: str, mllama: Path, pictures: dict[str, bytes]):
    engine = open_engine(f"openai:{served}#{mllama}", {"backoff_s": 0.05})
    assert isinstance(engine, RemoteEngine)
    local = open_engine(str(mllama), {"device": "cpu", "memory_mb": 64, "apart": False})
    prompt = ask("What is it?", ["picture0"])
    greedy = generate(prompt, pictures, seeds=(1, 2), sampling=GREEDY)
    there = engine.generate(greedy).result(timeout=60)
    here = local.generate(greedy).result()
    assert [candidate.text for candidate in there.candidates] == [candidate.text for candidate in here.candidates]
    assert there.usage.prompt_tokens == 2 * here.usage.prompt_tokens
    warm = Sampling(temperature=0.9, top_p=0.9, top_k=0, max_tokens=8)
    drawn = engine.generate(generate(prompt, pictures, seeds=(1, 2, 3), sampling=warm)).result(timeout=60)
    assert len(drawn.candidates) == 3
    error = engine.choose(choose(prompt, pictures)).exception(timeout=60)
    assert isinstance(error, ModelError)
    assert error.code == "no_labels"
    engine.close()
    local.close()
