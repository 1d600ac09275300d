"""Parameters that all lists share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query

from reasoning.errors import BadInput, nearest

MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries at most.")]
After = Annotated[str | None, Query(max_length=300, description="`next` of the part before this one.")]
AfterLine = Annotated[int, Query(ge=0, le=2**31 - 1, description="Only what comes after this line of the input.")]
Statuses = Annotated[list[str], Query(description="Only entries in one of these states; may be repeated.")]
Filter = Annotated[
    str, Query(description="As in the pages, such as `status:failed label:night`; see the dashboard's documentation.")
]
DryRun = Annotated[bool, Query(description="Say what would be done and change nothing.")]


def known_statuses(asked: list[str], known: Iterable[str]) -> list[str]:
    """The states asked for. Raises BadInput for one that nothing is ever in: the list would be empty for good."""
    names = sorted(known)
    for name in asked:
        if name not in names:
            raise BadInput(
                f'there is no status "{name}".{nearest(name, names)} Use: {", ".join(names)}.',
                code="invalid_value",
                field="status",
            )
    return asked
