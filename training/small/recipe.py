"""The recipe of the demo model, run by TRL's SFT trainer: `python -m training`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import MllamaForConditionalGeneration
from trl import SFTConfig

from training.sft.trainer import Trainer
from training.small.harvest import Own, harvest, read, rehearse
from training.small.model import build_config, build_model, save
from training.small.optimizer import build_optimizer
from training.small.stream import Collator, Phase
from training.small.tokenizer import build_tokenizer
from workers.engine.protocol import Engine
from workers.engine.registry import open_engine

LOOK = {"policy": 0.6, "look": 0.4}
"""What a run begins with: seeing and thinking, no judging."""
JUDGE = {
    "policy": 0.30,
    "look": 0.08,
    "judge-caption": 0.10,
    "judge-reasoning": 0.12,
    "own-reasoning": 0.24,
    "own-caption": 0.08,
    "judge-summary": 0.02,
    "judge-conclusion": 0.05,
    "judge-whole": 0.01,
}
"""What it goes on with: both roles in one set of weights."""
CRITIC = {
    "own-policy": 0.25,
    "judge-ending": 0.40,
    "own-reasoning": 0.20,
    "judge-reasoning": 0.10,
    "own-caption": 0.02,
    "judge-caption": 0.01,
    "judge-summary": 0.01,
    "judge-conclusion": 0.01,
}
"""What it ends with: the judge goes on learning, where the policy is unsure above all; the policy stays as it is."""
HARVEST_SEED, HARVEST_SCENES = 1, 7000
"""Training scenes that the model answers after the first part, and that yield its own mistakes."""
REHEARSE_SEED, REHEARSE_SCENES = 2, 2600
"""Training scenes that it answers after the second part; those answers it rehearses in the third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that a run depends on."""

    steps: int
    batch: int
    matrix_rate: float
    other_rate: float
    phases: tuple[Phase, ...]
    seed: int = 42
    width: int = 128
    warmup: int = 100
    decay_share: float = 0.3
    """Last share of the steps, in which the rates fall linearly to a twentieth."""
    save_every: int = 100


POLICY = Recipe(
    steps=900,
    batch=64,
    matrix_rate=8e-3,
    other_rate=3e-3,
    decay_share=0.0,
    phases=(Phase(200, (1, 3), LOOK), Phase(600, (1, 5), LOOK), Phase(1 << 30, (2, 7), LOOK)),
)
"""The model learns to see and to think: good, with room for search."""
BOTH = Recipe(
    steps=1250,
    batch=32,
    # A comparison has one word to learn from, and Muon's steps do not shrink with the gradient: at the rates above
    # the noise of those batches undoes what the policy knows.
    matrix_rate=1.2e-3,
    other_rate=5e-4,
    warmup=40,
    decay_share=0.7,
    phases=(Phase(1 << 30, (2, 6), JUDGE),),
)
"""And to judge, from mistakes that the teacher makes up and from those of its own."""
CRITICAL = Recipe(
    steps=3000,
    batch=32,
    matrix_rate=1.2e-3,
    other_rate=5e-4,
    warmup=40,
    decay_share=0.6,
    phases=(Phase(1 << 30, (2, 6), CRITIC),),
)
"""And to judge better than it answers; without that a search could not gain."""


def rebuild(out: Path, *, resume: bool = True) -> Path:
    """Train the demo model from nothing into `out` and return its folder; a killed run goes on."""
    policy, both, pairs, answers = out / "policy", out / "both", out / "pairs.jsonl", out / "answers.jsonl"
    if not resume:
        for path in (pairs, answers):
            path.unlink(missing_ok=True)
    _part(POLICY, policy, resume=resume)
    with _engine(policy) as engine:
        harvest(engine, pairs, seed=HARVEST_SEED, scenes=HARVEST_SCENES)
    own = read(pairs)
    _part(BOTH, both, start=policy / "model", resume=resume, own=own)
    with _engine(both) as engine:
        rehearse(engine, answers, seed=REHEARSE_SEED, scenes=REHEARSE_SCENES)
    _part(CRITICAL, out, start=both / "model", resume=resume, own=own | read(answers))
    return out / "model"


def _part(recipe: Recipe, out: Path, *, resume: bool, **rest: Any) -> None:
    """One part of a run, unless it is done."""
    if not (resume and (out / "model").exists()):
        train(recipe, out, resume=resume, **rest)


@contextmanager
def _engine(part: Path) -> Iterator[Engine]:
    engine = open_engine(str(part / "model"), {"device": "cpu"})
    try:
        yield engine
    finally:
        engine.close()


def rate_factor(recipe: Recipe, step: int) -> float:
    """Learning rates at a step as a share of the highest."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    start = recipe.steps * (1 - recipe.decay_share)
    if step <= start:
        return 1.0
    return max(0.05, 1 - 0.95 * (step - start) / (recipe.steps - start))


def train(
    recipe: Recipe,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = True,
    own: Mapping[str, Sequence[Own]] | None = None,
    **extra: Any,
) -> None:
    """Train into `out`: checkpoints, metrics, and at the end the model folder `out/model`.

    `start` is a model folder whose weights the run begins with; without it they are fresh. `own` holds what the
    kinds `own-...` of the phases are made of.
    """
    tokenizer = build_tokenizer()
    config = build_config(tokenizer, recipe.width)
    if start is None:
        model = build_model(config, recipe.seed)
    else:
        model = MllamaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    model.set_attn_implementation("eager")
    optimizer = build_optimizer(model, recipe.matrix_rate, recipe.other_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(recipe, step))
    settings: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.batch,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": True,
        "use_cpu": True,
        "max_grad_norm": 1.0,
        "save_steps": recipe.save_every,
        "save_total_limit": 4,
        "logging_steps": 20,
        "report_to": [],
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "gradient_checkpointing": False,
        "max_length": None,
        "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
        **extra,
    }
    trainer = Trainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_dict({"row": range(recipe.steps * recipe.batch)}),
        data_collator=Collator(tokenizer, recipe.phases, recipe.batch, recipe.seed, own=own),
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
    )
    kept = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trainer.train(resume_from_checkpoint=str(kept[-1]) if resume and kept else None)
    save(model, tokenizer, out / "model")
