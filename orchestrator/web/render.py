"""Templates with everything on by default that keeps hostile text harmless: autoescape, visible control characters."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator import labels
from orchestrator.web import numbers
from orchestrator.web.assets import Assets
from orchestrator.web.flaws import told, unusable
from orchestrator.web.text import short, shown, visible


def address(prefix: str, *parts: object, **params: object) -> str:
    """The address of a page below the path prefix; parameters that are None or empty are left out."""
    path = "/".join(quote(str(part), safe="") for part in parts)
    wanted = {name.rstrip("_"): value for name, value in params.items() if value not in (None, "", ())}
    return f"{prefix.rstrip('/')}/{path}" + (f"?{urlencode(wanted, doseq=True)}" if wanted else "")


class Templates:
    """The templates of one process."""

    def __init__(self, prefix: str, assets: Assets, environment: str = "") -> None:
        self._env = Environment(
            loader=PackageLoader("orchestrator.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_harmless,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._env.globals.update(
            url=partial(address, prefix),
            static=lambda name: f"{address(prefix, 'static', name)}?v={assets.digest(name)}",
            version=version("stagebeam"),
            dash=numbers.DASH,
            environment=environment,
        )
        self._env.filters.update(
            shown=shown,
            short=short,
            count=numbers.count,
            seconds=numbers.seconds,
            about=numbers.about,
            bytes=numbers.size,
            ratio=numbers.ratio,
            money=numbers.money,
            rate=numbers.rate,
            moment=numbers.moment,
            minute=numbers.minute,
            document=_document,
            flaw=told,
            unusable=unusable,
            labels=labels.shown,
            words=lambda text: str(text).replace("_", " "),
        )
        self._env.globals.update(percent=numbers.percent, ago=numbers.ago)

    def render(self, template: str, **values: Any) -> str:
        """The text of a page; a value that a template names and nobody gave is a defect and raises."""
        return self._env.get_template(template).render(values)


def _harmless(value: Any) -> Any:
    """Runs on every expression of every template, before escaping."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def _document(value: Any) -> Markup:
    """A JSON document, indented, as a person reads it."""
    return shown(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
