"""Where the environment becomes settings: read once, at the start of a command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.settings import Settings


def settings_with(**flags: Any) -> Settings:
    """The settings of the environment; flags that were given win. Raises BadInput."""
    from storage.settings import read_settings

    return read_settings(os.environ, **{name: value for name, value in flags.items() if value is not None})


def service_settings(name: str, **flags: Any) -> Settings:
    """Settings of a process that serves, with its log set up. Raises BadInput."""
    from orchestrator.cli.terminal.logs import set_up_logs

    settings = settings_with(**flags)
    set_up_logs(settings, name)
    return settings
