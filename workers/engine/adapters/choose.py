"""Which adapter fits a loaded model."""

from __future__ import annotations

from typing import Any

from workers.engine.adapters import decoder
from workers.engine.adapters.base import Adapter
from workers.engine.adapters.mllama import MllamaAdapter


def adapter_for(model: Any, processor: Any) -> Adapter | None:
    """The adapter of the model's family, or None when there is none and plain `generate` must do."""
    if model.config.model_type == "mllama":
        return MllamaAdapter(model, processor)
    return decoder.DecoderAdapter(model, processor) if decoder.fits(model) else None
