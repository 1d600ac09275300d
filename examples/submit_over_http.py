"""Submits a job and waits for its results with nothing but the standard library: the API as any client sees it.

Run `stagebeam up` first, then `python examples/submit_over_http.py`.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

SERVER = os.environ.get("STAGEBEAM_URL", "http://127.0.0.1:8000")


def call(method: str, path: str, body: Any = None) -> bytes:
    """One request; the answer's body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ.get('STAGEBEAM_API_KEY', '')}"}
    request = urllib.request.Request(SERVER + path, data, headers, method=method)  # noqa: S310 - the address is the user's own
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
        return bytes(answer.read())


def main() -> None:
    """Ask one question about one image."""
    image = base64.b64encode((Path(__file__).parent / "shapes.png").read_bytes()).decode()
    line = {"custom_id": "a", "question": "How many shapes are there?", "images": [f"data:image/png;base64,{image}"]}
    job = json.loads(call("POST", "/api/jobs", {"lines": [line], "policy": {"candidates": 2}}))
    while job["status"] not in ("completed", "failed", "cancelled", "expired"):
        time.sleep(0.5)
        job = json.loads(call("GET", f"/api/jobs/{job['id']}"))
    print(call("GET", f"/api/jobs/{job['id']}/results").decode())


if __name__ == "__main__":
    main()
