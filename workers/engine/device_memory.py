"""Memory of a GPU by the books of torch's allocator, as asking the device could break a graph capture; and its load."""

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


def device_busy(device: str) -> int | None:
    """Percent of the last moments that the GPU worked, as its driver says; None on a CPU, or where nobody can say.

    torch asks the driver by way of nvidia-ml-py, which is there on GPU images and no dependency of ours.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    try:
        return int(torch.cuda.utilization(device))
    except Exception:  # the driver's own kinds of error, or no nvidia-ml-py: a heartbeat must not fail of it
        return None
