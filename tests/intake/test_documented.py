from __future__ import annotations

import re
from pathlib import Path

import orchestrator.intake
from orchestrator.intake.chat import LINE_NAMES
from orchestrator.intake.native import NAMES

FOLDER = Path(orchestrator.intake.__file__).parent
CODE = re.compile(r'(?:code=|\.add\(\s*)"([a-z0-9_]+)"')


def test_every_error_code_and_field_is_documented():
    text = (FOLDER / "README.md").read_text()
    codes = {code for path in FOLDER.glob("*.py") for code in CODE.findall(path.read_text())}
    assert len(codes) > 20
    missing = {word for word in codes | NAMES | LINE_NAMES if f"`{word}`" not in text and f'"{word}"' not in text}
    assert not missing
