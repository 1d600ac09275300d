"""The client for asyncio: the same methods, awaited. Files are read and sent in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from stagebeam import calls
from stagebeam.calls import Call, Image, Out
from stagebeam.client import (
    FIRST_PAUSE_S,
    LONGEST_POLL_S,
    POLL_S,
    REPEATABLE,
    TIMEOUT_S,
    TRIES,
    Client,
    checked,
    retry_pause,
)
from stagebeam.errors import Unreachable
from stagebeam.records import Answer, Job, Result
from stagebeam.sources import Source, name_of


class AsyncClient:
    """A stagebeam server, awaited; see `Client` for what each method does and raises."""

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S)
        self._files = Client(url, key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        self._files.close()
        await self._http.aclose()

    async def submit(
        self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = (), **options: Any
    ) -> Job:
        """Send a file, a folder or lines, with their local images, and start a job over it."""
        chosen = calls.given({"name": name_of(source), **options})
        return await self._do(calls.submit(await self.upload(source, dataset=dataset, roots=roots), chosen))

    async def plan(
        self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = (), **options: Any
    ) -> dict[str, Any]:
        """What `submit` would come to. Starts nothing."""
        file_id = await self.upload(source, dataset=dataset, roots=roots)
        return await self._do(calls.plan(file_id, calls.given(options)))

    async def upload(
        self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = ()
    ) -> str:
        """Send the input file of `submit` alone; its id."""
        return await asyncio.to_thread(self._files.upload, source, dataset=dataset, roots=roots)

    async def job(self, job_id: str) -> Job:
        """One job."""
        return await self._do(calls.job(job_id))

    async def jobs(self, *, limit: int = 100, status: Sequence[str] = (), name: str | None = None) -> list[Job]:
        """Jobs of the project, newest first."""
        return await self._do(calls.jobs(limit, status, name))

    async def wait(self, job_id: str, timeout_s: float | None = None, seen: Callable[[Job], None] | None = None) -> Job:
        """The job when it has ended. Raises TimeoutError."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        pause = POLL_S
        while not (job := await self.job(job_id)).ended:
            if seen:
                seen(job)
            if end is not None and time.monotonic() + pause > end:
                raise TimeoutError(f"job {job_id} is {job.status} after {timeout_s} s; it goes on")
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.2)
        return job

    async def cancel(self, job_id: str, reason: str = "", *, now: bool = False) -> Job:
        """Start nothing more; what runs may end within ten minutes, or is given up with `now`. Answers stay."""
        return await self._do(calls.cancel(job_id, reason, now=now))

    async def pause(self, job_id: str, reason: str = "") -> Job:
        """Start no more of its queries."""
        return await self._do(calls.action(job_id, "pause", reason))

    async def resume(self, job_id: str, reason: str = "") -> Job:
        """Go on with a paused job."""
        return await self._do(calls.action(job_id, "resume", reason))

    async def retry(self, job_id: str, reason: str = "") -> Job:
        """Start the failed, cancelled and expired queries of an ended job again."""
        return await self._do(calls.action(job_id, "retry", reason))

    async def clone(self, job_id: str, **changes: Any) -> Job:
        """Submit the same input again with changes."""
        return await self._do(calls.clone(job_id, changes))

    async def results(self, job_id: str, *, trace: bool = False, after_line: int = 0) -> AsyncIterator[Result]:
        """Every query that ended, in the order of the input, as a stream."""
        params = {"trace": trace, "after": after_line}
        path = f"{calls.job_path(job_id)}/results"
        try:
            async with self._http.stream("GET", self.url + path, params=params, headers=self._headers) as response:
                if response.is_error:
                    await response.aread()
                rest = b""
                async for chunk in checked(response).aiter_bytes():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield Result.of(orjson.loads(line))
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from {self.url} ({type(error).__name__})") from error

    async def ended(self, job_id: str, after: str | None = None) -> list[Result]:
        """The next thousand results in the order in which they end."""
        return await asyncio.to_thread(self._files.ended, job_id, after)

    async def export(
        self,
        job_id: str,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the parameter of the API
        trace: bool = False,
        joined: bool = False,
    ) -> Path:
        """Write the results to a file."""
        return await asyncio.to_thread(self._files.export, job_id, path, format=format, trace=trace, joined=joined)

    async def trace(self, job_id: str, custom_id: str) -> dict[str, Any]:
        """How a query was thought through. Raises KeyError when there is none."""
        found = await self._do(calls.find(job_id, custom_id))
        if not found:
            raise KeyError(custom_id)
        return await self._do(calls.trace(found[0]))

    async def ask(
        self, question: str, images: Sequence[Image] = (), *, model: str = "", timeout_s: float = 600.0, **search: Any
    ) -> Answer:
        """One question now."""
        return await self._do(calls.ask(question, images, model, search, timeout_s))

    async def _do(self, call: Call[Out]) -> Out:
        extra: dict[str, Any] = {} if call.timeout_s is None else {"timeout": call.timeout_s}
        params = {name: value for name, value in call.params.items() if value not in (None, [])}
        for attempt in range(1, TRIES + 1):
            try:
                response = await self._http.request(
                    call.method, self.url + call.path, params=params, json=call.json, headers=self._headers, **extra
                )
            except httpx.TransportError as error:
                if attempt == TRIES or call.method not in REPEATABLE:
                    raise Unreachable(f"no answer from {self.url} ({type(error).__name__})") from error
                await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
                continue
            pause = retry_pause(response, call.method, attempt)
            if pause is None:
                return call.parse(checked(response).json())
            await asyncio.sleep(pause)
        raise AssertionError  # the last attempt returned or raised
