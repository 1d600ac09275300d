"""Which adapter fits a loaded model."""

from __future__ import annotations

from typing import Any

from workers.engine.adapters.base import Adapter
from workers.engine.adapters.mllama import MllamaAdapter


def adapter_for(model: Any, processor: Any) -> Adapter:
    """The adapter of the model's family."""
    return MllamaAdapter(model, processor)
