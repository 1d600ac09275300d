"""What the system tests ask of a running stack over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import httpx


class Client:
    """The JSON API with a key."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ready(self) -> bool:
        return self._http.get("/health/ready").is_success

    def post(self, path: str, body: Any = None) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def job(self, job_id: str) -> Any:
        return self._http.get(f"/api/jobs/{job_id}").json()

    def submit(self, file_id: str, **body: Any) -> str:
        return str(self.post("/api/jobs", {"file_id": file_id, **body})["id"])

    def upload(self, data: bytes) -> str:
        return str(self._http.post("/api/files", content=data).json()["id"])

    def ended(self, job_id: str) -> bool:
        return self.job(job_id)["status"] in ("completed", "failed", "cancelled", "expired")

    def finished(self, job_id: str) -> int:
        counts = self.job(job_id)["counts"]
        return int(counts["done"] + counts["degraded"] + counts["failed"])

    def output(self, job_id: str) -> list[dict[str, Any]]:
        """The output file as it lies in the object store."""
        content = self._http.get(f"/api/files/{self.job(job_id)['output_file_id']}/content").content
        return [json.loads(line) for line in content.splitlines()]


def write_questions(path: Path, count: int, image: str) -> Path:
    """An input file of `count` questions about one image."""
    lines = (json.dumps({"custom_id": f"q{i}", "question": f"What is {i}?", "images": [image]}) for i in range(count))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
