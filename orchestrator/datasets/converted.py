"""Lines of other batch APIs, turned into chat lines: Anthropic's message batches and Gemini's batch requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.datasets.spec import Line
from orchestrator.intake.chat import CHAT_ENDPOINT
from reasoning.errors import BadInput

Convert = Callable[[Mapping[str, Any]], Line]

_ANTHROPIC = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
_GEMINI = {
    "maxOutputTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "seed": "seed",
}


def from_anthropic(record: Mapping[str, Any]) -> Line:
    """`{"custom_id", "params": {model, max_tokens, system, messages}}`. Raises BadInput on a part it cannot be."""
    params = _object(record.get("params"), "params")
    messages: list[dict[str, Any]] = []
    if params.get("system"):
        messages.append({"role": "system", "content": _anthropic_text(params["system"])})
    for place, message in enumerate(_list(params.get("messages"), "params.messages")):
        content = message.get("content") if isinstance(message, Mapping) else None
        name = f"params.messages[{place}].content"
        parts: Any = content
        if not isinstance(content, str):
            parts = [_anthropic_part(part, name) for part in _list(content, name)]
        messages.append({"role": message.get("role"), "content": parts})
    return _line(record.get("custom_id"), params.get("model"), messages, _renamed(params, _ANTHROPIC))


def from_gemini(record: Mapping[str, Any]) -> Line:
    """`{"key", "request": {contents, systemInstruction, generationConfig}}`. Raises BadInput."""
    request = _object(record.get("request"), "request")
    messages: list[dict[str, Any]] = []
    system = request.get("systemInstruction") or request.get("system_instruction")
    if system:
        parts = _list(_object(system, "request.systemInstruction").get("parts"), "request.systemInstruction.parts")
        text = "\n".join(str(part.get("text", "")) for part in parts)
        messages.append({"role": "system", "content": text})
    contents = request.get("contents")
    for place, content in enumerate(contents if isinstance(contents, list) else [contents]):
        name = f"request.contents[{place}]"
        found = _object(content, name)
        role = "assistant" if found.get("role") == "model" else "user"
        parts = [_gemini_part(part, f"{name}.parts") for part in _list(found.get("parts"), f"{name}.parts")]
        if role == "assistant":
            text = "\n".join(part["text"] for part in parts if part["type"] == "text")
            messages.append({"role": role, "content": text})
        else:
            messages.append({"role": role, "content": parts})
    config = request.get("generationConfig") or request.get("generation_config") or {}
    model = str(request.get("model") or "").removeprefix("models/") or None
    return _line(record.get("key"), model, messages, _renamed(config, _GEMINI))


def _line(custom_id: Any, model: Any, messages: list[Any], sampling: dict[str, Any]) -> Line:
    # Gemini names its model beside the file and not on its lines; the server's own stands in.
    body = {"model": model if isinstance(model, str) else "default", "messages": messages, **sampling}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT_ENDPOINT, "body": body}


def _anthropic_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(str(part.get("text", "")) for part in _list(value, "params.system") if isinstance(part, Mapping))


def _anthropic_part(part: Any, name: str) -> dict[str, Any]:
    found = _object(part, name)
    source = found.get("source")
    if found.get("type") == "text":
        return {"type": "text", "text": found.get("text")}
    if found.get("type") == "image" and isinstance(source, Mapping):
        if source.get("type") == "base64":
            return _image(f"data:{source.get('media_type', '')};base64,{source.get('data', '')}")
        if source.get("type") == "url":
            return _image(str(source.get("url", "")))
    raise _unsupported(name, found.get("type"))


def _gemini_part(part: Any, name: str) -> dict[str, Any]:
    found = _object(part, name)
    if isinstance(found.get("text"), str):
        return {"type": "text", "text": found["text"]}
    data = found.get("inlineData") or found.get("inline_data")
    if isinstance(data, Mapping):
        kind = data.get("mimeType") or data.get("mime_type") or ""
        return _image(f"data:{kind};base64,{data.get('data', '')}")
    file = found.get("fileData") or found.get("file_data")
    if isinstance(file, Mapping):
        return _image(str(file.get("fileUri") or file.get("file_uri") or ""))
    raise _unsupported(name, ", ".join(map(str, found)))


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _renamed(values: Any, names: Mapping[str, str]) -> dict[str, Any]:
    given = values if isinstance(values, Mapping) else {}
    return {name: given[theirs] for theirs, name in names.items() if given.get(theirs) is not None}


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{name} must be an object.", code="invalid_type", field=name)
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{name} must be a list.", code="invalid_type", field=name)
    return value


def _unsupported(name: str, kind: Any) -> BadInput:
    return BadInput(
        f"{name} holds a part ({kind}) that an image question cannot have; leave it out.",
        code="unsupported_parameter",
        field=name,
    )
