"""A session of the OpenAI client of any version, run by an interpreter of its own: `session.py URL`."""

import json
import sys
import tempfile
import time
from pathlib import Path

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="anything")
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
    file = client.files.create(file=path.open("rb"), purpose="batch")
made = [
    client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"n": str(n)}
    )
    for n in range(3)
]
end = time.monotonic() + 60
batch = made[0]
while batch.status != "completed" and time.monotonic() < end:
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
listed = [item.id for item in client.batches.list(limit=1) if item.id in {item.id for item in made}]
output = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "What?"}])
stream = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "What?"}], stream=True)
try:
    client.batches.cancel(batch.id)
    refused = None
except openai.BadRequestError as error:
    refused = error.code
try:
    client.files.retrieve("file-none")
    missing = None
except openai.NotFoundError as error:
    missing = error.code
print(
    json.dumps(
        {
            "version": openai.__version__,
            "filename": file.filename,
            "status": batch.status,
            "counts": [batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed],
            "listed": listed == [item.id for item in reversed(made)],
            "names": sorted(item["custom_id"] for item in output),
            "answer": bool(answer.choices[0].message.content),
            "stream": bool("".join(c.choices[0].delta.content or "" for c in stream if c.choices)),
            "refused": refused,
            "missing": missing,
            "deleted": client.files.delete(file.id).deleted,
        }
    )
)
