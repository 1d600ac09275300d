"""The Python client of a stagebeam server.

    from stagebeam import Client

    with Client("http://127.0.0.1:8000") as client:
        job = client.wait(client.submit("questions.jsonl", policy={"candidates": 4}).id)
        for result in client.results(job.id):
            print(result.custom_id, result.answer)

`AsyncClient` has the same methods, awaited. Scripts for the OpenAI API need neither: they change their base URL.
"""

from __future__ import annotations

from stagebeam.aio import AsyncClient
from stagebeam.client import Client
from stagebeam.errors import ApiError, Unreachable
from stagebeam.records import Answer, Counts, Job, Result

__all__ = ["Answer", "ApiError", "AsyncClient", "Client", "Counts", "Job", "Result", "Unreachable"]
