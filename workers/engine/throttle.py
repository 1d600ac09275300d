"""How much may run at once: less for a while when memory ran out, and prompts only now and then where that pays."""

from __future__ import annotations

RECOVER_STEPS = 128
"""Steps after which more rows are tried again, once memory ran out; doubled each time it runs out."""


class Throttle:
    """The limits of a step as they are now. Knows no memory: it is told what happened."""

    def __init__(self, rows: int, step_tokens: int, fill_every: int) -> None:
        """The most that is allowed; see `admission.Limits`."""
        self._most_rows, self._most_tokens, self._fill_every = rows, step_tokens, fill_every
        self.rows, self.step_tokens = rows, step_tokens
        self._patience, self._calm, self._held = RECOVER_STEPS, 0, False
        self._since_fill = fill_every

    @property
    def holds(self) -> bool:
        """Whether what runs gets on first: memory ran out, or prompts had their turn just now."""
        return self._held or self._since_fill < self._fill_every

    def halve(self, running: int) -> None:
        """Let less run at once for a while, and for longer each time: what runs must get to its end."""
        self.rows = max(1, min(self.rows, running) // 2)
        self.step_tokens = max(1, self.step_tokens // 2)
        self._patience, self._calm, self._held = 2 * self._patience, 0, True

    def went_well(self, *, filled: bool) -> None:
        """Count a step, with prompts in it if `filled`; after many of them let more run again."""
        self._since_fill = 1 if filled else self._since_fill + 1
        self._calm, self._held = self._calm + 1, False
        if self._calm >= self._patience:
            self.rows = min(self._most_rows, 2 * self.rows)
            self.step_tokens = min(self._most_tokens, 2 * self.step_tokens)
            self._calm = 0
