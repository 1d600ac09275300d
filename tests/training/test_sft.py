from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.errors import BadInput
from training import run
from training.data import conversations
from training.data.generate import generate
from training.data.teachers import ProgramTeacher
from training.sft.config import TrainConfig
from training.sft.mixture import mixture

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def rows(scenes_folder: Path) -> Path:
    """Structured rows of the scenes, written by the program."""
    out = scenes_folder / "rows.jsonl"
    generate(scenes_folder / "questions.jsonl", out, ProgramTeacher())
    return out


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, scenes_folder: Path, rows: Path) -> Write:
    """Writes a configuration with some fields changed; None drops a field."""

    def write(**changes: object) -> Path:
        fields: dict[str, object] = {
            "model": str(tiny_model),
            "out": "run",
            "rows": [str(rows)],
            "images": str(scenes_folder),
            "max_steps": 2,
            "batch": 2,
            "save_steps": 1,
            "log_steps": 1,
            "learning_rate": 1e-3,
            "tensorboard": False,
            "bf16": False,
        } | changes
        path = tmp_path / "train.toml"
        path.write_text("".join(f"{name} = {json.dumps(v)}\n" for name, v in fields.items() if v is not None))
        return path

    return write


@pytest.mark.filterwarnings("default")
def test_from_data_to_a_checkpoint_that_loads(config: Write, rows: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    steps: list[int] = []
    folder = run(
        config(judge_rows=[str(rows)], judge_share=0.5, tensorboard=True),
        progress=lambda step, last, loss: steps.append(step),
    )
    assert folder == tmp_path / "run" / "model"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "MllamaForConditionalGeneration"
    assert AutoProcessor.from_pretrained(folder).chat_template
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2]
    assert steps[-1] == 2
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


@pytest.mark.filterwarnings("default")
def test_a_killed_run_goes_on_as_if_nothing_had_been(config: Write, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    whole = load_file(run(config(out="whole", max_steps=3)) / "model.safetensors")
    run(config(out="cut", max_steps=3))
    for name in ("checkpoint-2", "checkpoint-3", "model"):
        shutil.rmtree(tmp_path / "cut" / name)
    resumed = load_file(run(config(out="cut", max_steps=3)) / "model.safetensors")
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)


@pytest.mark.filterwarnings("default")
def test_low_rank_adapters(config: Write, tmp_path: Path) -> None:
    folder = run(config(method="lora", lora_rank=2, max_steps=1))
    assert (folder / "adapter_model.safetensors").is_file()


def test_the_loss_is_on_what_the_model_says(tiny_model: Path, rows: Path, scenes_folder: Path) -> None:
    from transformers import AutoProcessor

    from training.sft.batches import Batcher

    processor = AutoProcessor.from_pretrained(tiny_model)
    data = conversations.read([rows], scenes_folder)
    batch = Batcher(data, scenes_folder, processor, 512)([{"row": 0}, {"row": 1}])
    for place in (0, 1):
        spoken = batch["labels"][place][batch["labels"][place] != -100]
        assert processor.tokenizer.decode(spoken) == data[place].rounds[0].answer + "<|eot|>"
    image = batch["input_ids"] == processor.image_token_id
    assert image.sum() == 2
    assert (batch["labels"][image] == -100).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_every_answer_of_a_conversation_is_learned(tiny_model: Path, rows: Path, scenes_folder: Path) -> None:
    from transformers import AutoProcessor

    from training.sft.batches import Batcher

    processor = AutoProcessor.from_pretrained(tiny_model)
    first, second = conversations.read([rows], scenes_folder)[:2]
    both = conversations.Conversation("both", first.image, first.rounds + second.rounds)
    labels = Batcher([both], scenes_folder, processor, 512)([{"row": 0}])["labels"][0]
    said = processor.tokenizer.decode(labels[labels != -100])
    assert said == "".join(turn.answer + "<|eot|>" for turn in both.rounds)
    with pytest.raises(BadInput, match="context is 20"):
        Batcher([both], scenes_folder, processor, 20)([{"row": 0}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1}, r'learning_rat: unknown field. Did you mean "learning_rate"\?'),
        ({"model": None}, "model: missing"),
        ({"batch": "2"}, "batch: is str; it must be int"),
        ({"batch": True}, "batch: is bool"),
        ({"batch": 0}, "batch: is 0; use 1 to 4096"),
        ({"method": "qlora"}, "method: is 'qlora'; use one of: full, lora"),
        ({"rows": []}, "rows: is empty"),
        ({"rows": ["none.jsonl"]}, "rows: .*none.jsonl is not a file"),
        ({"rows": [1]}, r"rows\[0\]: is int"),
        ({"images": "none"}, "images: .*none is not a folder"),
        ({"judge_share": 0.5}, "judge_share: judge_rows and a judge_share"),
        ({"model": "./none"}, "model: .*none holds no model"),
    ],
)
def test_a_bad_config_is_named_by_field(config: Write, changes: dict[str, object], message: str) -> None:
    path = config(**changes)
    with pytest.raises(BadInput, match=message):
        run(path)


def test_a_config_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text("model = ")
    with pytest.raises(BadInput, match="not TOML"):
        TrainConfig.load(tmp_path / "train.toml")
    with pytest.raises(BadInput, match="cannot read"):
        TrainConfig.load(tmp_path / "none.toml")


def test_missing_images_and_broken_rows_are_named_before_a_step(config: Write, rows: Path, tmp_path: Path) -> None:
    lines = rows.read_text().splitlines()
    lines[1] = re.sub(r"images/\d+\.png", "images/none.png", lines[1])
    lines[2] = lines[2].replace('"gpt"', '"bot"')
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join(lines))
    with pytest.raises(BadInput) as caught:
        run(config(rows=[str(broken)]))
    assert f"{broken}:2: image: " in caught.value.message
    assert f"{broken}:3: conversations[1].from: " in caught.value.message
    assert not (tmp_path / "run").exists()


def test_an_image_that_cannot_be_opened_is_named(
    tiny_model: Path, rows: Path, scenes_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoProcessor

    from training.sft.batches import Batcher

    row = conversations.read([rows], scenes_folder)[0]
    (tmp_path / "images").mkdir()
    (tmp_path / row.image).write_bytes(b"not an image")
    batcher = Batcher([row], tmp_path, AutoProcessor.from_pretrained(tiny_model), 512)
    with pytest.raises(BadInput, match="cannot open"):
        batcher([{"row": 0}])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.9), st.integers(0, 99))
def test_the_mixture_keeps_its_share(policy: int, judge: int, share: float, seed: int) -> None:
    order = mixture(policy, judge, share, seed)
    assert sorted(row for row in order if row < policy) == list(range(policy))
    drawn = [row for row in order if row >= policy]
    assert abs(len(drawn) - policy * share / (1 - share)) <= 0.5
    counts = [drawn.count(row) for row in range(policy, policy + judge)]
    assert max(counts) - min(counts) <= 1
    assert order == mixture(policy, judge, share, seed)


def test_the_papers_settings_ship(tmp_path: Path) -> None:
    import tomllib

    folder = Path(__file__).parents[2] / "training" / "configs"
    for path in folder.glob("*.toml"):
        data = tomllib.loads(path.read_text())
        for name in ("rows", "images"):
            data.pop(name)
        (tmp_path / "rows.jsonl").write_text("")
        data |= {"rows": ["rows.jsonl"], "images": "."}
        config = TrainConfig.from_mapping(data, tmp_path / path.name)
        assert (config.epochs, config.context, config.seed, config.gamma) == (3, 4096, 42, 0.85)
