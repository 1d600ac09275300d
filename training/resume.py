"""TRL's SFT trainer, made to resume a checkpoint of any architecture."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from trl import SFTTrainer


class Trainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer` whose resume loads weights the way `from_pretrained` does.

    transformers writes some architectures, Mllama among them, under other weight names than the module has and
    maps them back in `from_pretrained`; its trainer's own resume does not, matches nothing, warns, and goes on
    with fresh weights.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if not isinstance(target, PreTrainedModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept = type(target).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        target.load_state_dict(kept.state_dict())
