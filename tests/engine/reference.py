"""What a model says, the plain way: transformers' own `generate`, and sampling with no cache at all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from reasoning.prompts import Message, Prompt
from workers.engine.encode import Encoder
from workers.engine.protocol import Choose, Generate, Sampling
from workers.engine.sampling import Draw

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=12)
WARM = Sampling(temperature=0.9, top_p=0.9, top_k=20, max_tokens=12)


def ask(text: str, images: Sequence[str] = (), system: str = "", prefix: str = "") -> Prompt:
    first = (Message("system", system),) if system else ()
    return Prompt((*first, Message("user", text, tuple(images))), prefix)


def generate(
    prompt: Prompt,
    pictures: Mapping[str, bytes],
    *,
    seeds: Sequence[int] = (1,),
    sampling: Sampling = GREEDY,
    group: str = "",
    prefix_ids: Sequence[int] = (),
    **more: Any,
) -> Generate:
    return Generate(
        call_id=more.pop("call_id", "call"),
        prompt=prompt,
        load_image=pictures.__getitem__,
        group=group,
        indices=tuple(range(len(seeds))),
        seeds=tuple(seeds),
        stop=more.pop("stop", "</SUMMARY>"),
        sampling=sampling,
        prefix_ids=tuple(prefix_ids),
        **more,
    )


def choose(
    prompt: Prompt, pictures: Mapping[str, bytes], labels: tuple[str, ...] = ("1", "2"), group: str = ""
) -> Choose:
    return Choose(call_id="call", prompt=prompt, load_image=pictures.__getitem__, group=group, labels=labels)


class Reference:
    """A second copy of the weights under transformers' own code."""

    def __init__(self, source: Path | tuple[Any, Any], pictures: Mapping[str, bytes]) -> None:
        if isinstance(source, tuple):
            self.model, self.processor = source
        else:
            self.model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32).eval()
            self.processor = AutoProcessor.from_pretrained(source)
        self.encoder = Encoder(self.processor)
        self._pictures = pictures
        self.ends = {self.model.generation_config.eos_token_id}

    def inputs(self, prompt: Prompt, extra: Sequence[int] = ()) -> dict[str, torch.Tensor]:
        turns = [
            {
                "role": message.role,
                "content": [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}],
            }
            for message in prompt.messages
        ]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True) + prompt.prefix
        images = [Image.open(io.BytesIO(self._pictures[name])).convert("RGB") for name in prompt.images]
        data = dict(
            self.processor(
                text=[text], images=[images] if images else None, return_tensors="pt", add_special_tokens=False
            )
        )
        if extra:
            data["input_ids"] = torch.cat([data["input_ids"], torch.tensor([list(extra)])], dim=1)
            data["attention_mask"] = torch.ones_like(data["input_ids"])
            for name in ("cross_attention_mask", "mm_token_type_ids"):
                if name in data:
                    last = (
                        data[name][:, -1:] if name == "cross_attention_mask" else torch.zeros_like(data[name][:, -1:])
                    )
                    data[name] = torch.cat([data[name], last.repeat(1, len(extra), *[1] * (last.ndim - 2))], dim=1)
        return data

    def greedy(self, prompt: Prompt, tokens: int, extra: Sequence[int] = ()) -> tuple[int, ...]:
        """The new ids of `model.generate`, without the end of turn."""
        data = self.inputs(prompt, extra)
        with torch.inference_mode():
            out = self.model.generate(**data, max_new_tokens=tokens, do_sample=False)
        ids = out[0, data["input_ids"].shape[1] :].tolist()
        return tuple(i for i in ids if i not in self.ends)

    def logits(self, prompt: Prompt, extra: Sequence[int] = ()) -> torch.Tensor:
        """(vocabulary,) after the prompt and `extra`, computed from nothing."""
        with torch.inference_mode():
            scores: torch.Tensor = self.model(**self.inputs(prompt, extra)).logits[0, -1].float()
        return scores

    def sample(self, prompt: Prompt, seed: int, sampling: Sampling, prefix: Sequence[int] = ()) -> tuple[int, ...]:
        """One candidate drawn token by token from logits computed from nothing each time."""
        drawn: list[int] = []
        while len(drawn) < sampling.max_tokens:
            scores = self.logits(prompt, [*prefix, *drawn])[None]
            draw = Draw([sampling], [[seed]], scores.shape[1], scores.device)
            token = int(draw(scores, torch.tensor([len(drawn)])))
            if token in self.ends:
                break
            drawn.append(token)
        return tuple(drawn)
