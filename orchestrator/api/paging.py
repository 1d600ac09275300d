"""Parameters that all lists share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries at most.")]
After = Annotated[str | None, Query(max_length=300, description="`next` of the part before this one.")]
AfterLine = Annotated[int, Query(ge=0, le=2**31 - 1, description="Only what comes after this line of the input.")]
Statuses = Annotated[list[str], Query(description="Only entries in one of these states; may be repeated.")]
Filter = Annotated[
    str, Query(description="As in the pages, such as `status:failed label:night`; see the dashboard's documentation.")
]
DryRun = Annotated[bool, Query(description="Say what would be done and change nothing.")]
