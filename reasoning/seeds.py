"""Deterministic seeds: who draws what never depends on a worker, a batch or a retry of the same call.

Each seed is 63 bits of BLAKE2b over the stream's name and what identifies the draw, so that streams never
meet and neighbours are unrelated.
"""

from __future__ import annotations

from hashlib import blake2b

_MASK = 2**63 - 1


def _seed(stream: str, job_seed: int, custom_id: str, *parts: str | int) -> int:
    # The length in front of the custom_id keeps two different draws from spelling the same text.
    text = f"{stream}:{job_seed}:{len(custom_id)}:{custom_id}:{':'.join(map(str, parts))}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") & _MASK


def candidate(job_seed: int, custom_id: str, stage: str, round_: int, index: int, attempt: int = 0) -> int:
    """Seed of the noise of one candidate, 0 to 2^63 - 1."""
    return _seed("candidate", job_seed, custom_id, stage, round_, index, attempt)


def judge_words(job_seed: int, custom_id: str, key: str, showing: int) -> int:
    """Seed of the words that a judge writes: one per call key (attempt included) and order shown."""
    return _seed("judge", job_seed, custom_id, key, showing)


def pairing(job_seed: int, custom_id: str, stage: str, round_: int, draw: int) -> int:
    """Noise of one draw of the published knock-out."""
    return _seed("pairing", job_seed, custom_id, stage, round_, draw)


def tie_break(job_seed: int, custom_id: str, stage: str, round_: int, first: int, second: int) -> int:
    """Settles a tie of two candidates: an even value is for `first`."""
    return _seed("tie", job_seed, custom_id, stage, round_, first, second)
