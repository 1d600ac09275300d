"""A small OpenAI-compatible server over the scripted engine, with the manners of different servers."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from reasoning.prompts import Message, Prompt
from tests.waiting import wait_until
from workers.engine.protocol import Choose, Generate, Sampling
from workers.engine.scripted import Script, ScriptedEngine

OWN = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "n", "stop", "logprobs", "top_logprobs"}


@dataclass
class Manners:
    """What this server does and does not."""

    several: bool = True
    logprobs: bool = True
    extras: bool = True
    keeps_stop: bool = True
    delay_s: float = 0.02
    busy: int = 0
    """How many requests are turned away with 429 before any is served."""
    retry_after: str = "0.01"
    broken: list[str] = field(default_factory=list)
    """Bodies with which the first requests are answered."""
    fails: list[int] = field(default_factory=list)
    """Statuses with which the first requests are answered."""
    finish: str = ""
    """Finish reason of every text, which is then half of itself."""
    poison: str = ""
    """A message with this in it is refused, in whatever words."""
    fails_on: str = ""
    """A message with this in it is answered with an error of the server each time."""
    refuses_n: str = ""
    """What a request for several is refused with."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


class Server:
    """Serves on a free port until closed."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self._engine = ScriptedEngine(Script(read_images=False, context=250))
        app = FastAPI()
        app.post("/v1/chat/completions")(self._complete)
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._uvicorn.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._uvicorn.started)
        self.url = f"http://127.0.0.1:{self._uvicorn.servers[0].sockets[0].getsockname()[1]}/v1"

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()

    async def _complete(self, request: Request) -> Response:
        manners, body = self.manners, await request.json()
        manners.seen.append(body)
        if manners.busy > 0:
            manners.busy -= 1
            return JSONResponse({"error": {"message": "busy"}}, 429, {"retry-after": manners.retry_after})
        if manners.broken:
            return Response(manners.broken.pop(0), media_type="application/json")
        if manners.fails:
            return JSONResponse({"error": {"message": "gateway"}}, manners.fails.pop(0))
        if manners.fails_on and manners.fails_on in str(body["messages"]):
            return JSONResponse({"error": {"message": "internal error"}}, 500)
        if manners.poison and manners.poison in str(body["messages"]):
            return JSONResponse({"error": {"message": "the picture is too large"}}, 400)
        if manners.refuses_n and body.get("n", 1) > 1:
            return JSONResponse({"error": {"message": manners.refuses_n}}, 400)
        if not manners.extras and set(body) - OWN:
            return JSONResponse({"error": {"message": f"unexpected fields {set(body) - OWN}"}}, 422)
        manners.at_once += 1
        manners.most_at_once = max(manners.most_at_once, manners.at_once)
        try:
            await asyncio.sleep(manners.delay_s)
            return self._answer(body)
        finally:
            manners.at_once -= 1

    def _answer(self, body: dict[str, Any]) -> JSONResponse:
        prompt = _prompt(body)
        words = sum(len(message.text.split()) for message in prompt.messages)
        if words > 250:
            return JSONResponse({"error": {"message": "maximum context length is 250"}}, 400)
        choices = [self._choice(body, prompt, i) for i in range(body.get("n", 1) if self.manners.several else 1)]
        tokens = sum(choice.pop("tokens") for choice in choices)
        usage = {"prompt_tokens": words, "completion_tokens": tokens, "total_tokens": words + tokens}
        return JSONResponse(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
        )

    def _choice(self, body: dict[str, Any], prompt: Prompt, index: int) -> dict[str, Any]:
        stop = (body.get("stop") or [""])[0]
        sampling = Sampling(
            temperature=body.get("temperature", 1.0), top_p=1.0, top_k=0, max_tokens=body.get("max_tokens", 100)
        )
        common: dict[str, Any] = {"call_id": "x", "prompt": prompt, "load_image": lambda _: b""}
        seed = body.get("seed", 0) + 7919 * index
        made = (
            self._engine.generate(Generate(**common, indices=(0,), seeds=(seed,), stop=stop, sampling=sampling))
            .result()
            .candidates[0]
        )
        text = made.text
        choice: dict[str, Any] = {"index": index, "finish_reason": "length" if made.finish == "length" else "stop"}
        if not self.manners.keeps_stop and stop and text.endswith(stop):
            text = text.removesuffix(stop)
            choice["stop_reason"] = stop
        if self.manners.finish:
            text, choice["finish_reason"] = text[: len(text) // 2], self.manners.finish
        choice |= {"message": {"role": "assistant", "content": text}, "tokens": made.tokens}
        if body.get("logprobs") and self.manners.logprobs:
            shares = self._engine.choose(Choose(**common, labels=("1", "2"))).result().probabilities
            top = [
                {"token": label, "logprob": math.log(p), "bytes": None} for label, p in zip("12", shares, strict=True)
            ]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return choice


def _prompt(body: dict[str, Any]) -> Prompt:
    """The messages as a prompt; a last assistant message is the path so far."""
    turns, prefix = [], ""
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        images = tuple(
            hashlib.sha256(part["image_url"]["url"].encode()).hexdigest()
            for part in parts
            if part["type"] == "image_url"
        )
        if message["role"] == "assistant" and message is body["messages"][-1]:
            prefix = text
        else:
            turns.append(Message(message["role"], text, images))
    return Prompt(tuple(turns), prefix)
