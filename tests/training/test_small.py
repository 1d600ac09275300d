from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reasoning.grammar import read_answer
from reasoning.prompts import compare_prompt, policy_prompt, question_text
from reasoning.stages import STAGES, Stage
from training.scenes import teacher
from training.scenes.render import render
from training.small.pairs import pair
from training.small.rows import KINDS, as_query, build, chat, sample
from training.small.stream import Collator, Phase, encode, pixels
from training.small.tokenizer import IMAGE, build_tokenizer

TOKENIZER = build_tokenizer()
seeds = st.integers(0, 2**40)


def message(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


@given(seeds)
def test_text_comes_back_exactly(seed: int) -> None:
    scene, question, _ = sample("test", seed, 0, (1, 9))
    for text in (teacher.tagged(teacher.teach(scene, question)), *teacher.teach(scene, question).values()):
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        assert TOKENIZER.unk_token_id not in ids
        assert TOKENIZER.decode(ids) == text


@given(seeds, st.sampled_from(KINDS))
def test_rows_hold_no_unknown_word(seed: int, kind: str) -> None:
    row = build(kind, "test", seed, 0, (1, 9))
    assert TOKENIZER.unk_token_id not in TOKENIZER(f"{row.prompt} {row.reply}", add_special_tokens=False)["input_ids"]


def test_stage_tags_are_plain_single_tokens() -> None:
    for stage in STAGES:
        assert len(TOKENIZER(stage.close_tag, add_special_tokens=False)["input_ids"]) == 1
        assert stage.close_tag not in TOKENIZER.all_special_tokens


def test_rows_are_what_the_chat_template_renders() -> None:
    _, question, _ = sample("test", 1, 1, (2, 4))
    query = as_query(question)
    told = policy_prompt(query, "compact", "").messages[-1].text
    shown = compare_prompt(query, "compact", "labels", "caption", {}, ("a", "b")).messages[-1].text
    for text in (told, shown):
        rendered = TOKENIZER.apply_chat_template(message(text), tokenize=False, add_generation_prompt=True)
        assert rendered == chat(text)
    assert told == question_text(query)


def test_the_template_leaves_nothing_out() -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    text = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert all(str(turn["content"]) in text for turn in turns)


@given(seeds, st.sampled_from([*STAGES, "whole"]))
def test_pairs_differ_and_the_better_is_right(seed: int, stage: str) -> None:
    scene, question, rng = sample("judge", seed, 0, (1, 6))
    found = pair(stage, scene, question, rng)
    assert found.better != found.worse
    if stage == Stage.SUMMARY:
        assert found.better == teacher.summary(question)
    if stage == Stage.CONCLUSION:
        assert found.better == question.answer


@given(seeds)
def test_judge_rows_reply_with_one_word_of_either_text(seed: int) -> None:
    row = build("judge-caption", "train", seed, 0, (2, 5))
    assert "better :<|assistant|><CAPTION>" in row.prompt
    assert len(TOKENIZER(row.reply, add_special_tokens=False)["input_ids"]) == 1


def test_pixels_are_those_of_the_processor(tiny_model: Path) -> None:
    from transformers import AutoProcessor

    scene, question, _ = sample("test", 2, 0, (2, 4))
    image = render(scene)
    processor = AutoProcessor.from_pretrained(tiny_model)
    text = chat(question.text)
    wanted = processor(images=[Image.fromarray(image)], text=[text], add_special_tokens=False, return_tensors="pt")
    ours = encode([type(build("look", "test", 0, 0, (1, 2)))(text, "", image)], TOKENIZER, _image_id())
    assert np.allclose(wanted["pixel_values"][0, 0, 0].numpy(), pixels(image), atol=1e-6)
    length = wanted["input_ids"].shape[1]
    for name in ("input_ids", "cross_attention_mask"):
        assert torch.equal(wanted[name], ours[name][:, :length])
    assert torch.equal(wanted["aspect_ratio_ids"], ours["aspect_ratio_ids"])
    assert torch.equal(wanted["aspect_ratio_mask"], ours["aspect_ratio_mask"])


def test_the_loss_is_on_the_reply_alone() -> None:
    row = build("policy", "train", 4, 0, (2, 4))
    batch = encode([row], TOKENIZER, _image_id())
    spoken = batch["labels"][batch["labels"] != -100]
    assert TOKENIZER.decode(spoken).replace("<|eot|>", "") == row.reply.replace("<|eot|>", "")


def test_batches_follow_from_their_number() -> None:
    phases = (Phase(3, (1, 2), {"policy": 1.0}), Phase(9, (2, 3), {"judge-caption": 0.5, "look": 0.5}))
    first, again = (Collator(TOKENIZER, phases, 2, seed=7) for _ in range(2))
    assert [first.content(step)[0] for step in range(3)] == ["policy"] * 3
    assert {first.content(step)[0] for step in range(3, 40)} == {"judge-caption", "look"}
    numbers = [{"row": 10}, {"row": 11}]
    ours, theirs = first(numbers), again(numbers)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("width", [32, 64])
def test_the_model_has_six_layers_to_reason_with(width: int) -> None:
    from training.small.model import build_config

    text = build_config(TOKENIZER, width).text_config
    assert text.num_hidden_layers - len(text.cross_attention_layers) >= 6
    assert 0 not in text.cross_attention_layers


def _image_id() -> int:
    return int(TOKENIZER.convert_tokens_to_ids(IMAGE))


def test_three_reasonings_in_five_begin_hastily() -> None:
    said = [build("begin", "train", 1, index, (2, 3)).reply for index in range(150)]
    assert set(said) == {"check", "#1"}
    assert 0.45 < said.count("check") / len(said) < 0.75


@given(seeds)
def test_a_reasoning_that_is_begun_goes_on_to_the_known_answer(seed: int) -> None:
    row = build("think", "train", seed, 0, (2, 5))
    whole = f"{row.prompt}{row.reply}"
    assert row.prompt.endswith("<REASONING>#1")
    assert read_answer(whole[whole.index("<SUMMARY>") :].removesuffix("<|eot|>"))[Stage.CONCLUSION]
