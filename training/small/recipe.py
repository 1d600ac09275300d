"""The recipe of the demo model, run by TRL's SFT trainer: `python -m training`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import MllamaForConditionalGeneration
from trl import SFTConfig

from training.sft.trainer import Trainer
from training.small.harvest import Harvested, harvest, read
from training.small.model import build_config, build_model, save
from training.small.optimizer import build_optimizer
from training.small.stream import Collator, Phase
from training.small.tokenizer import build_tokenizer
from workers.engine.registry import open_engine

LOOK = {"policy": 0.6, "look": 0.4}
"""What a run begins with: seeing, and thinking about it."""
THINK = {"policy": 0.6, "think": 0.35, "look": 0.05}
"""What it goes on with: thinking above all, and what is asked seldom."""
JUDGE = {
    "policy": 0.28,
    "think": 0.05,
    "begin": 0.12,
    "look": 0.02,
    "judge-caption": 0.06,
    "judge-reasoning": 0.16,
    "own-reasoning": 0.20,
    "own-caption": 0.03,
    "judge-summary": 0.02,
    "judge-conclusion": 0.05,
    "judge-whole": 0.01,
}
"""What it ends with: both roles in one set of weights."""
HARVEST_SEED, HARVEST_SCENES = 3, 450
"""Training scenes that the model answers between the two, and that yield its own mistakes."""


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
    steps=1800,
    batch=128,
    matrix_rate=8e-3,
    other_rate=3e-3,
    decay_share=0.6,
    phases=(
        Phase(200, (1, 3), LOOK),
        Phase(600, (1, 5), LOOK),
        Phase(900, (2, 7), LOOK),
        Phase(1 << 30, (2, 6), THINK),
    ),
)
"""The model learns to see and to think."""
BOTH = Recipe(
    steps=600,
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


def rebuild(out: Path, *, resume: bool = True) -> Path:
    """Train the demo model from nothing into `out` and return its folder; a killed run goes on."""
    first, own = out / "policy", out / "own.jsonl"
    if not (resume and (first / "model").exists()):
        train(POLICY, first, resume=resume)
    if not resume:
        own.unlink(missing_ok=True)
    engine = open_engine(str(first / "model"), {"device": "cpu"})
    try:
        harvest(engine, own, seed=HARVEST_SEED, scenes=HARVEST_SCENES)
    finally:
        engine.close()
    train(BOTH, out, start=first / "model", resume=resume, harvested=read(own))
    return out / "model"


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
    harvested: Mapping[str, Sequence[Harvested]] | None = None,
    **extra: Any,
) -> None:
    """Train into `out`: checkpoints, metrics, and at the end the model folder `out/model`.

    `start` is a model folder whose weights the run begins with; without it they are fresh. `harvested` holds what
    the kinds `own-STAGE` of the phases are made of.
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
        "use_cpu": not torch.cuda.is_available(),
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
        "dataloader_num_workers": _loaders(),
        "disable_tqdm": True,
        **extra,
    }
    trainer = Trainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_dict({"row": range(recipe.steps * recipe.batch)}),
        data_collator=Collator(tokenizer, recipe.phases, recipe.batch, recipe.seed, harvested=harvested),
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
    )
    kept = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trainer.train(resume_from_checkpoint=str(kept[-1]) if resume and kept else None)
    save(model, tokenizer, out / "model")


def _loaders() -> int:
    """Processes that draw scenes ahead: a GPU would wait for them; on a CPU they would take the cores it trains on."""
    return min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 0
