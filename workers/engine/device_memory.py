"""Memory of a GPU by the books of torch's allocator: asking the device itself could break a graph capture."""

from __future__ import annotations


def device_memory(device: str) -> dict[str, int] | None:
    """Bytes that this process reserved on the device now (`used`) and at `most`, and the device's `total`.

    None where there is no such thing: on a CPU, and for engines whose model runs elsewhere.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    return {
        "used": torch.cuda.memory_reserved(device),
        "most": torch.cuda.max_memory_reserved(device),
        "total": torch.cuda.get_device_properties(device).total_memory,
    }
