"""`stagebeam db`: the database schema."""

from __future__ import annotations

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document

app = verbs("Create the database schema or bring it up to date.")


@app.command()
def upgrade(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the schema to the version of this program; safe to run at every start."""
    from orchestrator.cli.terminal.door import settings_with
    from storage import schema

    settings = settings_with()
    url = settings.effective_database_url
    before = schema.current(url) if schema.exists(url) else None
    if not dry_run and not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    after = schema.newest() if dry_run else schema.upgrade(url)
    document({"from": before, "to": after, "changed": not dry_run and before != after}, as_json=as_json)
