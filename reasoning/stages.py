"""The four stages of an answer, in their fixed order (LLaVA-CoT, arXiv 2411.10440, section 3.1)."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """One of the four tagged parts of an answer. The value is the word used in keys, rows and the API."""

    SUMMARY = "summary"
    CAPTION = "caption"
    REASONING = "reasoning"
    CONCLUSION = "conclusion"

    @property
    def tag(self) -> str:
        """The upper-case word between the angle brackets."""
        return self.value.upper()

    @property
    def open_tag(self) -> str:
        """The text that opens the stage, such as `<CAPTION>`."""
        return f"<{self.tag}>"

    @property
    def close_tag(self) -> str:
        """The text that closes the stage, such as `</CAPTION>`; generation of a stage stops at it."""
        return f"</{self.tag}>"

    @property
    def following(self) -> Stage | None:
        """The stage after this one, or None after CONCLUSION."""
        place = STAGES.index(self)
        return STAGES[place + 1] if place + 1 < len(STAGES) else None


STAGES: tuple[Stage, ...] = tuple(Stage)
"""All stages in order. The first three stay hidden from the user; CONCLUSION is the answer."""
