"""The JSON API as the commands use it. What goes wrong becomes one message and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestrator.cli.terminal.exits import CommandError, Exit

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 60.0
PAGE = 100
"""Entries fetched at a time from a list."""

_WHERE_TO_LOOK = {
    "/api/jobs/": "`stagebeam job list` shows them",
    "/api/queries/": "a query is its number, or JOB/CUSTOM_ID",
    "/api/workers/": "`stagebeam worker list` shows them",
    "/api/schedules/": "`stagebeam schedule list` shows them",
    "/api/datasets/": "`stagebeam dataset list` shows them",
}
"""What to do when what a path names is not there."""

_EXITS = {
    400: Exit.BAD_INPUT,
    404: Exit.NOT_FOUND,
    413: Exit.BAD_INPUT,
    415: Exit.BAD_INPUT,
    422: Exit.BAD_INPUT,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


def connect() -> Api:
    """A client of the server that `STAGEBEAM_URL` names, with the key of `STAGEBEAM_API_KEY`."""
    from storage.settings import read_settings

    settings = read_settings(os.environ)
    return Api(settings.url, settings.api_key.get_secret_value() if settings.api_key else None)


class Api:
    """A client of the JSON API. Every method raises `CommandError` when the server refuses or is not there."""

    def __init__(self, url: str, key: str | None = None) -> None:
        import httpx

        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """The decoded answer to a GET."""
        return self._send("GET", path, params=_given(params))

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """The decoded answer to a POST of a JSON body."""
        return self._send("POST", path, json=body, params=_given(params))

    def put(self, path: str, body: Any, **params: Any) -> Any:
        """The decoded answer to a PUT of a JSON body."""
        return self._send("PUT", path, json=body, params=_given(params))

    def delete(self, path: str, **params: Any) -> Any:
        """The decoded answer to a DELETE."""
        return self._send("DELETE", path, params=_given(params))

    def pages(self, path: str, *, limit: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The entries of a list, fetched page by page, `limit` at most."""
        left = limit
        while left is None or left > 0:
            page = self.get(path, limit=min(PAGE, left or PAGE), **params)
            yield from page["data"]
            if not page["has_more"]:
                return
            left = None if left is None else left - len(page["data"])
            params["after"] = page["next"]

    def upload(self, path: Path, filename: str) -> dict[str, Any]:
        """Send a file; the answer is its file document."""
        with path.open("rb") as source:
            chunks = iter(lambda: source.read(2**20), b"")
            headers = {"content-type": "application/octet-stream", "content-length": str(path.stat().st_size)}
            answer = self._send("POST", "/api/files", content=chunks, headers=headers, params={"filename": filename})
        return dict(answer)

    def put_blob(self, sha256: str, data: bytes) -> None:
        """Store image bytes under their content hash."""
        self._send("PUT", f"/api/blobs/{sha256}", content=data, headers={"content-type": "application/octet-stream"})

    @contextmanager
    def lines(self, path: str, **params: Any) -> Iterator[Iterator[str]]:
        """The lines of a streamed answer, cut at newlines alone: texts may hold other separators."""
        with self._telling(), self._http.stream("GET", path, params=_given(params)) as response:
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield _lines(response.iter_bytes())

    def download(self, path: str, target: Path, **params: Any) -> int:
        """Write a streamed answer to a file that is whole or not there; its bytes."""
        part = target.with_name(f".{target.name}.part")
        try:
            with self._telling(), self._http.stream("GET", path, params=_given(params)) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(target)
        except OSError as error:
            message = f"cannot write {target}: {error.strerror}"
            raise CommandError(message, exit_code=Exit.BAD_INPUT, code="unwritable_file") from None
        finally:
            part.unlink(missing_ok=True)
        return target.stat().st_size

    def _send(self, method: str, path: str, **request: Any) -> Any:
        with self._telling():
            response = self._http.request(method, path, **request)
        if response.is_error:
            raise _refusal(response)
        return response.json() if response.content else None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TransportError as error:
            message = (
                f"no answer from {self.url} ({type(error).__name__}). "
                "Start it with `stagebeam up`, or set STAGEBEAM_URL to where it runs."
            )
            raise CommandError(message, exit_code=Exit.UNREACHABLE, code="unreachable") from None


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in whole)
    if rest:
        yield rest.decode()


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _refusal(response: httpx.Response) -> CommandError:
    """The server's error envelope as an error of the command line."""
    try:
        body = response.json()["error"]
        message, code, details = str(body["message"]), body.get("code"), body.get("details")
    except (ValueError, KeyError, TypeError):
        message, code, details = f"the server answered {response.status_code}", None, None
    if code == "not_found" and message.endswith("in this project"):
        path = response.request.url.path
        hints = [hint for start, hint in _WHERE_TO_LOOK.items() if path.startswith(start)]
        message = "; ".join([message, *hints])
    if code == "invalid_api_key":
        message += "; commands send that in STAGEBEAM_API_KEY"
    exit_code = _EXITS.get(response.status_code, Exit.REFUSED)
    return CommandError(message, exit_code=exit_code, code=code or "", details=tuple(details or ()))
