"""What the flash kernel computes, run by run in plain torch: stands in for it where there is no GPU."""

from __future__ import annotations

from itertools import pairwise

import torch

from workers.engine.ragged import Call


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, limit: int, call: Call, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `ragged.Kernel`. Nothing outside of what a run counts is read, and every run keeps to the limits given."""
    assert call.bounds.dtype == call.starts.dtype == call.lengths.dtype == torch.int32
    assert len(call.bounds) == len(call.starts) == len(call.lengths) + 1
    assert int(call.bounds[-1]) == len(q)
    out, lse = torch.full_like(q, float("nan")), torch.full((q.shape[1], len(q)), float("nan"))
    for (begin, end), start, length in zip(pairwise(call.bounds.tolist()), call.starts, call.lengths, strict=False):
        if begin == end:
            continue
        assert end - begin <= call.longest
        assert length <= limit
        seen = slice(int(start), int(start + length))
        repeats = q.shape[1] // k.shape[1]
        keys, values = (part[seen].repeat_interleave(repeats, 1).transpose(0, 1) for part in (k, v))
        scores = q[begin:end].transpose(0, 1) @ keys.transpose(1, 2) * scale
        if call.causal:
            scores += torch.full(scores.shape[1:], float("-inf")).triu(int(length) - (end - begin) + 1)
        lse[:, begin:end] = scores.logsumexp(-1)
        out[begin:end] = (scores.softmax(-1) @ values).transpose(0, 1)
    return out, lse
