"""The OpenAI chat line: `{custom_id, method, url, body}` turned into the same accepted record.

Rules and error codes: openai-batch-wire.md sections 9.6 and 9.8. The last user message is the question, the
messages before it are context, and the images of all messages come in order. `max_tokens` holds for each
candidate and stage, not for the answer as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.intake import fields
from orchestrator.intake.fields import PolicyOverrides, type_name
from orchestrator.intake.messages import read_messages
from orchestrator.intake.native import checked_metadata
from orchestrator.intake.records import AcceptedLine, Problems

CHAT_ENDPOINT = "/v1/chat/completions"

LINE_NAMES = frozenset(("custom_id", "method", "url", "body"))

POLICY_OF = {
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
}
"""Parameter of the body to policy field; a later one wins, and `search` wins over all."""

_ANY = object()

HARMLESS: Mapping[str, Any] = {
    **dict.fromkeys(
        ("user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"), _ANY
    ),
    **dict.fromkeys(("parallel_tool_calls", "reasoning_effort", "verbosity", "stream_options"), _ANY),
    "n": 1,
    "stream": False,
    "logprobs": False,
    "top_logprobs": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "stop": [],
    "tools": [],
    "functions": [],
    "tool_choice": "none",
    "function_call": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "audio": None,
    "prediction": None,
    "web_search_options": None,
}
"""Parameters of the real API that change nothing here, with the one value at which they are accepted."""

BODY_NAMES = frozenset(("model", "messages", "metadata", "search", *POLICY_OF, *HARMLESS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRules:
    """What the envelope of a chat line must say."""

    endpoint: str = CHAT_ENDPOINT
    one_model: bool = True
    """Whether all lines of a file must name the same model."""
    model: str | None = None
    """The model they must name; None lets the first line decide."""


class ChatReader:
    """Reads chat lines of one file; remembers the model that the first line named."""

    def __init__(self, rules: ChatRules, overrides: PolicyOverrides) -> None:
        self._rules = rules
        self._overrides = overrides
        self._model = rules.model

    def read(self, record: Mapping[str, Any], problems: Problems) -> AcceptedLine | None:
        """The accepted line, or None with every reason noted."""
        fields.unknown_names(record, LINE_NAMES, problems)
        own_id = fields.custom_id(record, problems)
        self._envelope(record, problems)
        body = record.get("body")
        if body is None:
            problems.add("missing_required_parameter", "body", "body is missing; it holds model and messages.")
        elif not isinstance(body, Mapping):
            problems.add("invalid_type", "body", f"body is {type_name(body)}; it must be an object.")
        if not isinstance(body, Mapping):
            return None
        line = read_body(body, own_id or "", problems, self._overrides)
        self._check_model(body.get("model"), problems)
        return None if problems.errors else line

    def _envelope(self, record: Mapping[str, Any], problems: Problems) -> None:
        for name, wanted, code in (
            ("method", "POST", "invalid_request"),
            ("url", self._rules.endpoint, "url_mismatch"),
        ):
            value = record.get(name)
            if value is None:
                problems.add("missing_required_parameter", name, f'{name} is missing; write "{wanted}".')
            elif value != wanted:
                problems.add(code, name, f'{name} must be "{wanted}" on every line of this batch.')

    def _check_model(self, model: Any, problems: Problems) -> None:
        if not self._rules.one_model or not isinstance(model, str):
            return
        if self._model is None:
            if not problems.errors:  # a refused line must not decide for the others
                self._model = model
        elif model != self._model:
            problems.add(
                "mismatched_model",
                "body.model",
                f'body.model is "{model}" and the batch runs "{self._model}"; send each model in a file of its own.',
            )


def read_body(
    body: Mapping[str, Any], own_id: str, problems: Problems, overrides: PolicyOverrides
) -> AcceptedLine | None:
    """A chat completion request as a query named `own_id`, or None with every reason noted."""
    fields.unknown_names(body, BODY_NAMES, problems, "body.")
    _check_harmless(body, problems)
    model = body.get("model")
    if model is None:
        problems.add("missing_required_parameter", "body.model", "body.model is missing; `/v1/models` lists the names.")
    elif not isinstance(model, str):
        problems.add("invalid_type", "body.model", f"body.model is {type_name(model)}; it must be text.")
    asked = read_messages(body.get("messages"), problems)
    policy, trace = _search(body, problems, overrides)
    extra: dict[str, Any] = {"wire": {"model": model, "trace": trace}}
    if body.get("metadata") is not None:
        extra["metadata"] = checked_metadata(body["metadata"], "body.metadata", problems)
    if problems.errors or asked is None:
        return None
    return AcceptedLine(
        custom_id=own_id,
        question=asked.question,
        images=asked.images,
        image_fields=asked.image_fields,
        context=asked.context,
        policy=policy,
        extra=extra,
    )


def _check_harmless(body: Mapping[str, Any], problems: Problems) -> None:
    for name, value in body.items():
        neutral = HARMLESS.get(name, _ANY)
        if value is None or neutral is _ANY or value == neutral:
            continue
        if name == "stream":
            problems.add(
                "invalid_request", "body.stream", "body.stream must be false in a batch; leave it out, or ask directly."
            )
        else:
            problems.add(
                "unsupported_parameter",
                f"body.{name}",
                f"body.{name} is not supported: an answer is searched stage by stage. Leave it out.",
            )


def _search(body: Mapping[str, Any], problems: Problems, overrides: PolicyOverrides) -> tuple[dict[str, Any], bool]:
    """Policy overrides from the sampling parameters and from `search`, and whether the trace is asked for."""
    policy: dict[str, Any] = {}
    for name, target in POLICY_OF.items():
        value = body.get(name)
        if value is None:
            continue
        if name == "seed" and isinstance(value, int):
            value %= 2**63  # the API allows negative seeds
        overrides.check_one(target, value, f"body.{name}", problems)
        policy[target] = value
    search = body.get("search")
    if search is None:
        return policy, False
    if not isinstance(search, Mapping):
        problems.add("invalid_type", "body.search", f"body.search is {type_name(search)}; it must be an object.")
        return policy, False
    trace = search.get("trace", False)
    if not isinstance(trace, bool):
        problems.add("invalid_type", "body.search.trace", "body.search.trace must be true or false.")
    chosen = {name: value for name, value in search.items() if name != "trace"}
    return {**policy, **overrides.check(chosen, "body.search", problems)}, bool(trace)
