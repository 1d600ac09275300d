"""The steps of the hosted API's quick start for batches, about a picture: nothing in it knows of stagebeam.

Run `stagebeam up --model demo` first. The client takes address and key from the environment, so they alone differ:

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=anything python examples/openai_batch.py
"""

from __future__ import annotations

import base64
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

QUESTIONS = (
    "What is the shape of the red thing?",
    "What color is the large cube?",
    "How many cubes are there?",
    "Subtract all cubes. How many things are left?",
)
ENDED = ("completed", "failed", "expired", "cancelled")


def request(number: int, question: str, picture: str) -> str:
    """One line of the input file."""
    content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": picture}}]
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], "max_tokens": 1000}
    return json.dumps({"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


def main() -> None:
    """Prepare, upload, create, check, retrieve: the guide's steps."""
    client = OpenAI()
    data = base64.b64encode((Path(__file__).parent / "scene.png").read_bytes()).decode()
    lines = [request(number, text, f"data:image/png;base64,{data}") for number, text in enumerate(QUESTIONS, start=1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batchinput.jsonl"
        path.write_text("\n".join(lines) + "\n")
        with path.open("rb") as handle:
            file = client.files.create(file=handle, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"description": "quick start"},
    )
    while batch.status not in ENDED:
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
    print(batch.id, batch.status, batch.request_counts)
    for file_id in (batch.error_file_id, batch.output_file_id):
        for text in client.files.content(file_id).text.splitlines() if file_id else ():
            show(json.loads(text))


def show(line: dict[str, Any]) -> None:
    """Question and answer, or what went wrong."""
    question = QUESTIONS[int(line["custom_id"].rpartition("-")[2]) - 1]
    response = line["response"]
    if response and response["status_code"] == 200:
        print(f"{question} {response['body']['choices'][0]['message']['content']}")
    else:
        print(f"{question} {line['error'] or response['body']['error']}")


if __name__ == "__main__":
    main()
