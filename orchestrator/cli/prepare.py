"""`stagebeam prepare`: what must be there before the services start."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, DryRun, document

app = single()


@app.command()
def prepare(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the database up to date, make the bucket if it is missing, and try the object store."""
    from orchestrator.cli.terminal.door import settings_with
    from storage import schema
    from storage.objects import open_objects

    settings = settings_with()
    url = settings.effective_database_url
    before = schema.current(url) if schema.exists(url) else None
    if dry_run:
        document({"schema": {"from": before, "to": schema.newest()}}, as_json=as_json)
        return
    objects: Any = open_objects(settings)
    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    after = schema.upgrade(url)
    made = objects.make_bucket() if hasattr(objects, "make_bucket") else False
    document(
        {"schema": {"from": before, "to": after}, "bucket_made": made, "objects": objects.check()}, as_json=as_json
    )
