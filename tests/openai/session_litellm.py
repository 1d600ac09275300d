"""Batch calls through LiteLLM, run by an interpreter of its own: `session_litellm.py URL`."""

import json
import sys
import tempfile
import time
from pathlib import Path

import litellm

server = {"custom_llm_provider": "openai", "api_base": sys.argv[1] + "/v1", "api_key": "anything"}
lines = [
    {
        "custom_id": f"q-{n}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "scripted", "messages": [{"role": "user", "content": f"What is {n}?"}]},
    }
    for n in range(4)
]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "input.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with path.open("rb") as handle:
        file = litellm.create_file(file=handle, purpose="batch", **server)
batch = litellm.create_batch(
    completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, metadata={"a": "b"}, **server
)
made = batch.id
end = time.monotonic() + 60
while batch.status != "completed" and time.monotonic() < end:
    time.sleep(0.2)
    batch = litellm.retrieve_batch(batch_id=made, **server)
output = [json.loads(line) for line in litellm.file_content(file_id=batch.output_file_id, **server).text.splitlines()]
listed = litellm.list_batches(limit=10, **server)
print(
    json.dumps(
        {
            "status": batch.status,
            "counts": [batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed],
            "listed": made in [item.id for item in listed.data],
            "names": sorted(item["custom_id"] for item in output),
            "deleted": litellm.file_delete(file_id=file.id, **server).deleted,
        }
    )
)
