"""`stagebeam db`: the database schema."""

from __future__ import annotations

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document

app = verbs("Create the database schema or bring it up to date.")


@app.command()
def upgrade(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring the schema to the version of this program; safe to run at every start."""
    from orchestrator.cli.terminal.door import settings_with
    from storage import migrate

    settings = settings_with()
    before, target = migrate.versions(settings.effective_database_url)
    if not dry_run:
        migrate.upgrade(settings.effective_database_url)
    document({"from": before, "to": target, "changed": not dry_run and before != target}, as_json=as_json)
