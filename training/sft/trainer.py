"""TRL's SFT trainer with what the recipes need: a faithful resume and the paper's learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import SFTTrainer


class Trainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer` that resumes weights as `from_pretrained` loads them and can decay the rate by epochs.

    transformers writes some architectures, Mllama among them, under other weight names than the module has and
    maps them back in `from_pretrained`; its trainer's own resume does not, matches nothing, warns, and goes on
    with fresh weights.
    """

    def __init__(self, *args: Any, gamma: float = 1.0, **settings: Any) -> None:
        self._gamma = gamma
        self.lr_scheduler: Any = None
        super().__init__(*args, **settings)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The rate after e whole epochs is the first rate times gamma to the power of e; gamma 1: as configured."""
        if self._gamma == 1.0 or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        epoch = max(1, math.ceil(num_training_steps / max(1.0, float(self.args.num_train_epochs))))
        warmup = self.args.get_warmup_steps(num_training_steps)

        def factor(step: int) -> float:
            return float(min(1.0, (step + 1) / max(1, warmup)) * self._gamma ** (step // epoch))

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if not isinstance(target, PreTrainedModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept = type(target).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        target.load_state_dict(kept.state_dict())
