"""What every engine keeps to, whether it runs a model or a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reasoning.errors import ModelError, Transient
from reasoning.records import Finish
from tests.engine.reference import GREEDY, WARM, ask, choose, generate
from tests.engine.server import Manners, Server
from tests.waiting import wait_until
from workers.engine.apart import ApartEngine
from workers.engine.protocol import Engine, Sampling
from workers.engine.registry import open_engine

SMALL = {"device": "cpu", "memory_mb": 64, "rows": 32}
LONG = Sampling(temperature=0.9, top_p=1.0, top_k=0, max_tokens=300)

Make = Callable[..., Engine]


@pytest.fixture(scope="module", params=["scripted", "transformers", "apart", "openai"])
def make(request: pytest.FixtureRequest, mllama: Path) -> Iterator[Make]:
    """Opens an engine of the kind under test; `slots` bounds the requests in hand."""
    opened: list[Engine | Server] = []
    url = ""
    if request.param == "openai":
        server = Server(Manners(delay_s=0.05))
        opened.append(server)
        url = server.url

    def open_one(slots: int = 64) -> Engine:
        if request.param == "scripted":
            engine = open_engine("scripted", {"slots": slots, "seconds": 0.05, "context": 250})
        elif request.param == "openai":
            engine = open_engine(f"openai:{url}#m", {"slots": slots})
        elif request.param == "apart":
            engine = ApartEngine(str(mllama), SMALL, slots=slots, processes=1, cores=1)
        else:
            engine = open_engine(str(mllama), {**SMALL, "slots": slots, "apart": False})
        opened.append(engine)
        return engine

    yield open_one
    for thing in reversed(opened):
        thing.close()


@pytest.fixture(scope="module")
def engine(make: Make) -> Engine:
    return make()


@pytest.fixture(scope="module")
def narrow(make: Make) -> Engine:
    """One that takes two requests at a time. The test of closing closes it, and stands after the others for that."""
    return make(slots=2)


def test_candidates_come_in_the_order_asked(engine: Engine, pictures: dict[str, bytes]):
    request = generate(ask("What?", ["picture0"]), pictures, seeds=(5, 6, 7), sampling=WARM)
    result = engine.generate(request).result()
    assert [candidate.index for candidate in result.candidates] == [0, 1, 2]
    assert [candidate.seed for candidate in result.candidates] == [5, 6, 7]
    assert result.usage.generated_tokens == sum(candidate.tokens for candidate in result.candidates)
    assert result.usage.prompt_tokens > 0
    assert all(len(candidate.token_ids) in (0, candidate.tokens) for candidate in result.candidates)


def test_greedy_repeats_and_ignores_the_seed(engine: Engine, pictures: dict[str, bytes]):
    request = generate(ask("Greedy?", ["picture1"]), pictures, seeds=(1, 2), sampling=GREEDY)
    first, second = (engine.generate(request).result().candidates for _ in range(2))
    assert {candidate.text for candidate in first + second} == {first[0].text}


def test_seeds_repeat_and_differ(engine: Engine, pictures: dict[str, bytes]):
    request = generate(ask("Draw!", ["picture2"]), pictures, seeds=tuple(range(8)), sampling=WARM)
    first, second = (engine.generate(request).result().candidates for _ in range(2))
    assert first == second
    assert len({candidate.text for candidate in first}) > 1


def test_the_token_limit_truncates(engine: Engine, pictures: dict[str, bytes]):
    short = Sampling(temperature=0.9, top_p=1.0, top_k=0, max_tokens=3)
    result = engine.generate(generate(ask("Long?"), pictures, seeds=(1, 2, 3), sampling=short)).result()
    assert all(candidate.tokens <= 3 for candidate in result.candidates)
    assert Finish.LENGTH in {candidate.finish for candidate in result.candidates}


def test_label_probabilities_sum_to_one(engine: Engine, pictures: dict[str, bytes]):
    chosen = engine.choose(choose(ask("1 or 2?", ["picture0"]), pictures)).result()
    assert len(chosen.probabilities) == 2
    assert sum(chosen.probabilities) == pytest.approx(1)
    assert chosen.usage.generated_tokens <= 1


@pytest.mark.parametrize(
    ("images", "stored"), [(["missing"], {}), (["broken"], {"broken": b"no image"}), (["cut"], {"cut": b"\x89PNG\r\n"})]
)
def test_a_bad_image_fails_its_call_alone(
    engine: Engine, pictures: dict[str, bytes], images: list[str], stored: dict[str, bytes]
):
    bad = engine.generate(generate(ask("What?", images), stored))
    good = engine.generate(generate(ask("What?", ["picture0"]), pictures))
    assert failure(bad).code == "bad_image"
    assert good.result().candidates


def test_a_prompt_beyond_the_context_is_refused(engine: Engine, pictures: dict[str, bytes]):
    assert failure(engine.generate(generate(ask("word " * 400), pictures))).code == "context_overflow"


def test_no_candidates_is_refused(engine: Engine, pictures: dict[str, bytes]):
    assert failure(engine.generate(generate(ask("None?"), pictures, seeds=()))).code == "no_candidates"


def test_literal_tags_and_placeholders_are_text(engine: Engine, pictures: dict[str, bytes]):
    text = "</SUMMARY> <|image|> <|eot_id|> <image> Is this it?</CONCLUSION>"
    result = engine.generate(generate(ask(text, ["picture0"]), pictures)).result()
    assert result.candidates[0].tokens > 0


def test_a_cancelled_call_ends(engine: Engine, pictures: dict[str, bytes]):
    cancelled = threading.Event()
    future = engine.generate(
        generate(ask("Cancel me"), pictures, seeds=(1, 2), sampling=LONG, cancelled=cancelled.is_set)
    )
    cancelled.set()
    assert failure(future).code == "cancelled"


def test_a_late_call_ends(engine: Engine, pictures: dict[str, bytes]):
    request = generate(ask("Hurry"), pictures, seeds=(1, 2), sampling=LONG, deadline=time.monotonic() + 0.02)
    assert failure(engine.generate(request)).code == "deadline"


def test_back_pressure_blocks_the_caller(narrow: Engine, pictures: dict[str, bytes]):
    futures: list[Any] = []
    release = threading.Event()
    request = generate(ask("Wait"), pictures, sampling=LONG, seeds=(1, 2, 3), cancelled=release.is_set)

    def feed() -> None:
        futures.extend(narrow.generate(request) for _ in range(6))

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert len(futures) < 6
    feeder.join(timeout=20)
    release.set()
    wait_until(lambda: all(future.done() for future in futures))


def test_many_threads_share_it(engine: Engine, pictures: dict[str, bytes]):
    alone = engine.generate(generate(ask("Same?"), pictures, seeds=(9,), sampling=WARM)).result().candidates
    found: list[Any] = []

    def one() -> None:
        request = generate(ask("Same?"), pictures, seeds=(9,), sampling=WARM)
        found.append(engine.generate(request).result().candidates)

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 12


def test_closing_hands_back_what_is_in_hand(narrow: Engine, pictures: dict[str, bytes]):
    future = narrow.generate(generate(ask("Too late"), pictures, seeds=tuple(range(20)), sampling=LONG))
    narrow.close()
    narrow.close()
    assert isinstance(future.exception(timeout=10), Transient)
    after = narrow.generate(generate(ask("After"), pictures))
    assert isinstance(after.exception(timeout=10), Transient)


def test_counters_only_grow(engine: Engine, pictures: dict[str, bytes]):
    before = engine.counters().values
    result = engine.generate(generate(ask("Count"), pictures, seeds=(1, 2))).result()
    after = engine.counters().values
    assert after["requests"] == before.get("requests", 0) + 1
    assert after["generated_tokens"] - before.get("generated_tokens", 0) == result.usage.generated_tokens
    assert after["prompt_tokens"] - before.get("prompt_tokens", 0) == result.usage.prompt_tokens


def test_it_tells_of_itself(engine: Engine):
    info = engine.info
    assert info.kind in ("scripted", "transformers", "openai")
    assert info.slots > 0
    assert info.prompts in ("standard", "tuned", "compact")


def failure(future: Any) -> ModelError:
    error = future.exception(timeout=30)
    assert isinstance(error, ModelError)
    return error
