"""One training run: rows and configuration in, checkpoints, metrics and a model folder out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig

from reasoning.errors import BadInput
from training.data.conversations import read
from training.sft.batches import Batcher
from training.sft.config import TrainConfig
from training.sft.metrics import MetricsFile
from training.sft.mixture import mixture
from training.sft.trainer import Trainer
from workers.engine.registry import DEMO, demo_folder

Progress = Callable[[int, int, float | None], None]
"""Told the step, the last step and the loss there, if it is known."""


def run(config: TrainConfig, *, resume: bool = True, progress: Progress = lambda step, steps, loss: None) -> Path:
    """Train as `config` says and return the folder of the trained model, `OUT/model`.

    A run that was killed goes on from its last checkpoint unless `resume` is off.

    Raises:
        BadInput: rows, images or the model are not usable; named by file, line and field before a step is spent.
    """
    rows = read(config.rows, config.images)
    judge = read(config.judge_rows, config.images)
    model, processor = _load(config)
    order = mixture(len(rows), len(judge), config.judge_share, config.seed)
    batcher = Batcher([*rows, *judge], config.images, processor, config.context)
    config.out.mkdir(parents=True, exist_ok=True)
    with closing(MetricsFile(config.out / "metrics.jsonl", progress)) as metrics:
        trainer = Trainer(
            model=model,
            args=SFTConfig(**_settings(config)),
            train_dataset=Dataset.from_dict({"row": order}),
            data_collator=batcher,
            processing_class=processor.tokenizer,
            callbacks=[metrics],
            peft_config=_adapters(config),
            gamma=config.gamma,
        )
        kept = _last_checkpoint(config.out) if resume else None
        trainer.train(resume_from_checkpoint=str(kept) if kept else None)
    folder = config.out / "model"
    trainer.save_model(str(folder))
    processor.save_pretrained(folder)
    return folder


def _load(config: TrainConfig) -> tuple[Any, Any]:
    name = str(demo_folder()) if config.model == DEMO else config.model
    try:
        processor = AutoProcessor.from_pretrained(name)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise BadInput(
            f'cannot load the model "{config.model}": {error}', code="invalid_config", field="model"
        ) from error
    return model, processor


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The trainer's own settings."""
    return {
        "output_dir": str(config.out),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch,
        "gradient_accumulation_steps": config.accumulate,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip,
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": config.bf16,
        "activation_checkpointing": config.gradient_checkpointing,
        "save_steps": config.save_steps,
        "save_total_limit": config.keep,
        "logging_steps": config.log_steps,
        "report_to": ["tensorboard"] if config.tensorboard else [],
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "disable_tqdm": True,
    }


def _adapters(config: TrainConfig) -> Any:
    if config.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.lora_targets),
        task_type="CAUSAL_LM",
    )


def _last_checkpoint(out: Path) -> Path | None:
    kept = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return kept[-1] if kept else None
