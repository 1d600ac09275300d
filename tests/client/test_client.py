"""The Python client, sync and async, on a whole stack."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stagebeam import ApiError, AsyncClient, Client, Unreachable
from stagebeam.client import retry_pause

WAIT_S = 30.0


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 9, 9)).save(stream, "PNG")
    return stream.getvalue()


def lines(count: int) -> Iterator[dict[str, Any]]:
    return ({"custom_id": f"q{n}", "question": f"What is {n}?", "images": [png(n)]} for n in range(count))


def test_lines_with_images_in_memory(live: str, tmp_path: Path):
    with Client(live) as client:
        job = client.submit(lines(5), policy={"candidates": 2}, name="mine", metadata={"a": "b"})
        seen: list[str] = []
        done = client.wait(job.id, WAIT_S, seen=lambda found: seen.append(found.status))
        assert (done.status, done.counts.done, done.name, done.ended) == ("completed", 5, "mine", True)
        found = list(client.results(job.id))
        assert [item.custom_id for item in found] == [f"q{n}" for n in range(5)]
        assert all(item.answer for item in found)
        assert len(client.ended(job.id)) == 5
        assert client.ended(job.id, client.ended(job.id)[-1].raw["cursor"]) == []
        assert len(client.trace(job.id, "q1")["stages"]) == 4
        with pytest.raises(KeyError):
            client.trace(job.id, "q9")
        path = client.export(job.id, tmp_path / "out.parquet", trace=True, joined=True)
        assert pq.read_table(path).num_rows == 5
        assert job.id in [item.id for item in client.jobs(limit=5)]
        twin = client.clone(job.id, policy={"seed": 7})
        assert twin.raw["policy"]["candidates"] == 2
        assert client.wait(twin.id, WAIT_S).counts.done == 5


def test_a_table_with_images_beside_it(live: str, tmp_path: Path):
    (tmp_path / "pics").mkdir()
    for n in range(3):
        (tmp_path / "pics" / f"{n}.png").write_bytes(png(n))
    rows = "".join(f"{n},pics/{n}.png,what {n}?\n" for n in range(3))
    table = tmp_path / "t.csv"
    table.write_text("id,image,ask\n" + rows)
    with Client(live) as client:
        dataset = {"columns": {"question": "ask"}}
        plan = client.plan(table, dataset=dataset)
        assert (plan["accepted"], plan["distinct_images"]) == (3, 3)
        job = client.submit(table, dataset=dataset)
        assert client.wait(job.id, WAIT_S).counts.done == 3
        folder = client.submit(tmp_path / "pics", dataset={"question": "What is this?"})
        assert client.wait(folder.id, WAIT_S).counts.done == 3


def test_a_question_asked_directly(live: str, tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    with Client(live) as client:
        answer = client.ask("What?", [path, png(2)], candidates=2, trace=True)
    assert answer.text
    assert answer.thoughts


def test_a_job_is_paused_resumed_and_cancelled(live: str):
    with Client(live) as client:
        job = client.submit(lines(3), policy={"candidates": 64})
        paused = client.pause(job.id, "look first")
        assert paused.raw["paused"]
        assert not client.resume(job.id).raw["paused"]
        assert client.cancel(job.id, "no time", now=True).raw["killed_at"] is not None
        ended = client.wait(job.id, WAIT_S)
        assert ended.status == "cancelled"
        again = client.retry(job.id) if ended.counts.cancelled else ended
        assert client.wait(again.id, WAIT_S).counts.waiting == 0


def test_what_goes_wrong_is_told(live: str):
    with Client(live) as client:
        with pytest.raises(ApiError, match="there is no job") as error:
            client.job("job_none")
        assert (error.value.status, error.value.code) == (404, "not_found")
        with pytest.raises(ApiError, match="Did you mean"):
            client.submit(lines(1), policy={"candidats": 3})
        failed = client.wait(client.submit([{"custom_id": "x"}]).id, WAIT_S)
        assert failed.status == "failed"
        assert {item["code"] for item in failed.errors} == {"missing_required_parameter"}
    with Client("http://127.0.0.1:1") as nobody:
        for call in (lambda: nobody.upload([]), lambda: list(nobody.results("job_none"))):
            with pytest.raises(Unreachable):
                call()


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers)


def test_when_a_request_is_sent_again():
    assert retry_pause(answer(200), "GET", 1) is None
    assert retry_pause(answer(503), "POST", 1) is None, "it may have been done"
    assert retry_pause(answer(503), "GET", 1) == 1.0
    assert retry_pause(answer(429, **{"retry-after": "3"}), "POST", 1) == 3.0
    assert retry_pause(answer(429, **{"retry-after": "300"}), "POST", 1) is None
    assert retry_pause(answer(429), "GET", 4) is None
    assert retry_pause(answer(503, **{"x-should-retry": "false"}), "GET", 1) is None


def test_the_same_awaited(live: str, tmp_path: Path):
    import asyncio

    async def go() -> None:
        async with AsyncClient(live) as client:
            jobs = await asyncio.gather(*(client.submit(lines(2)) for _ in range(3)))
            for job in jobs:
                assert (await client.wait(job.id, WAIT_S)).counts.done == 2
            found = [item async for item in client.results(jobs[0].id)]
            assert [item.custom_id for item in found] == ["q0", "q1"]
            assert len(await client.ended(jobs[0].id)) == 2
            assert (await client.plan(lines(2)))["accepted"] == 2
            assert (await client.ask("What?")).text
            assert (await client.trace(jobs[0].id, "q0"))["answer"]
            assert (await client.export(jobs[0].id, tmp_path / "a.csv")).stat().st_size > 50
            assert len(await client.jobs(limit=3)) == 3
            with pytest.raises(ApiError):
                await client.job("job_none")
        async with AsyncClient("http://127.0.0.1:1") as nobody:
            with pytest.raises(Unreachable):
                [item async for item in nobody.results("job_none")]

    asyncio.run(go())
