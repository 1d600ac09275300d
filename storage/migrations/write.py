"""Write a revision from the difference between `storage.tables` and the revisions so far; for checkouts only."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from storage import schema
from storage.database import open_database

VERSIONS = Path(__file__).parent / "versions"
INITIAL = VERSIONS / "r0001_initial_tables.py"

DEFAULT_PROJECT = """
    projects = sa.table(
        "projects", sa.column("id", sa.Text()), sa.column("name", sa.Text()), sa.column("created_at", sa.Double())
    )
    op.bulk_insert(projects, [{"id": "default", "name": "default", "created_at": 0.0}])
"""
"""What the first revision does beside making tables."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("message", nargs="?", default="initial")
    parser.add_argument("--initial", action="store_true", help="write the first revision anew")
    arguments = parser.parse_args()
    if arguments.initial:
        INITIAL.unlink(missing_ok=True)
    number = len(list(VERSIONS.glob("r[0-9]*.py"))) + 1
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/blank.db"
        if number > 1:
            schema.upgrade(url)
        written = _revision(url, "initial tables" if arguments.initial else arguments.message, f"{number:04d}")
    lines = [line for line in written.read_text().splitlines() if not line.lstrip().startswith("# ###")]
    source = "\n".join(lines)
    if arguments.initial:
        source = source.replace("\n\ndef downgrade", f"{DEFAULT_PROJECT}\n\ndef downgrade", 1)
    written.write_text(source + "\n")
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "format", "--quiet", str(written)], check=True)
    subprocess.run([*ruff, "check", "--fix", "--quiet", str(written)], check=True)
    sys.stdout.write(f"{written}\n")


def _revision(url: str, message: str, number: str) -> Path:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", "storage:migrations")
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    database = open_database(url)
    with database.write() as conn:
        config.attributes["connection"] = conn
        made = command.revision(config, message=message, autogenerate=True, rev_id=number)
    database.close()
    return Path(made.path)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
