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


def opened(folder: Path) -> tuple[Any, Any]:
    """Model and processor of a folder."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(folder)


class Reference:
    """A second copy of the weights under transformers' own code."""

    def __init__(self, source: Path | tuple[Any, Any], pictures: Mapping[str, bytes]) -> None:
        self.model, self.processor = source if isinstance(source, tuple) else opened(source)
        self.encoder = Encoder(self.processor)
        self.pictures = pictures
        self._known: dict[tuple[Prompt, tuple[int, ...]], torch.Tensor] = {}
        # What stands for an image is not drawn. Mllama has no place for it among its logits.
        placeholder = self.model.config.image_token_id
        self._mute = [placeholder] if placeholder < self.model.get_output_embeddings().out_features else []
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
        images = [Image.open(io.BytesIO(self.pictures[name])).convert("RGB") for name in prompt.images]
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
            out = self.model.generate(
                **data, max_new_tokens=tokens, do_sample=False, suppress_tokens=self._mute or None
            )
        ids = out[0, data["input_ids"].shape[1] :].tolist()
        return tuple(i for i in ids if i not in self.ends)

    def logits(self, prompt: Prompt, extra: Sequence[int] = ()) -> torch.Tensor:
        """(vocabulary,) after the prompt and `extra`, computed from nothing; remembered, as tests ask it again."""
        key = (prompt, tuple(extra))
        if key not in self._known:
            with torch.inference_mode():
                scores = self.model(**self.inputs(prompt, extra)).logits[0, -1].float()
                scores[self._mute] = float("-inf")
            self._known[key] = scores
        return self._known[key]

    def shares(self, prompt: Prompt, labels: Sequence[str]) -> list[float]:
        """Probability of each label after the prompt: of the tokens that may begin it, normalised over the labels."""
        probabilities = torch.softmax(self.logits(prompt).double(), -1)
        weights = torch.stack([probabilities[ids].sum() for ids in self.encoder.label_ids(labels)])
        return (weights / weights.sum()).tolist()

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
