"""A real Chromium, driven over the WebDriver protocol; small enough to need no package for it."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.services.processes import free_port, missing, server
from tests.waiting import wait_until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the protocol names an element."""
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",
)


PATIENCE_S = 180.0
"""How long a thing may take to come true: only a page that is wrong takes as long, and a busy machine fails nothing."""


class Absent(AssertionError):
    """There is no such element."""


@dataclass
class Browser:
    """One session. Elements are found by CSS selector, and waited for."""

    wire: httpx.Client
    session: str
    pictures: Path | None = None
    """Where pictures are kept; without, none are taken."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.wire.request(method, f"/session/{self.session}{path}", json=body)
        value = answer.json()["value"]
        if answer.is_error:
            raise Absent(f"{path}: {value.get('error')}: {value.get('message', '')[:300]}")
        return value

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    @property
    def address(self) -> str:
        return str(self.call("GET", "/url"))

    def find(self, selector: str) -> str:
        found = wait_until(lambda: self.all(selector), PATIENCE_S, what=f"{selector} on {self.address}")
        return found[0]

    def all(self, selector: str) -> list[str]:
        found = self.call("POST", "/elements", {"using": "css selector", "value": selector})
        return [item[ELEMENT] for item in found]

    def act(self, selector: str, command: str, body: dict[str, Any] | None = None) -> None:
        """Do something to an element once it is there and can take it; a refresh may take it away in between."""

        def done() -> bool:
            try:
                self.call("POST", f"/element/{self.find(selector)}/{command}", body or {})
            except Absent:
                return False
            return True

        wait_until(done, PATIENCE_S, what=f"{command} of {selector} on {self.address}")

    def click(self, selector: str) -> None:
        self.act(selector, "click")

    def fill(self, selector: str, text: str) -> None:
        self.act(selector, "clear")
        self.act(selector, "value", {"text": text})

    def attach(self, selector: str, path: Path) -> None:
        self.act(selector, "value", {"text": str(path)})

    def attach_all(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose several files at once."""
        self.act(selector, "value", {"text": "\n".join(str(path) for path in paths)})

    def press(self, keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def text(self, selector: str = "body") -> str:
        return str(self.call("GET", f"/element/{self.find(selector)}/text"))

    def see(self, text: str, selector: str = "body", timeout: float = PATIENCE_S) -> str:
        """Wait until the text is on the page."""
        return wait_until(
            lambda: self.text(selector) if text in self.text(selector) else "", timeout, what=f'"{text}" is seen'
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def width(self, pixels: int) -> None:
        metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)

    def dark(self) -> None:
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def complaints(self) -> list[str]:
        """What the browser wrote on its console: broken policy, missing files, errors of scripts."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def picture(self, name: str, *, top: float = 0, tallest: int = 6000) -> None:
        """Keep the page as an image for people to look at, from `top` on, up to a height in pixels."""
        if self.pictures is None:
            return
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        height = min(size["height"] - top, tallest)
        clip = {"x": 0, "y": top, "width": size["width"], "height": height, "scale": 1}
        data = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        (self.pictures / f"{name}.png").write_bytes(base64.b64decode(data))


@contextmanager
def driver(folder: Path) -> Iterator[httpx.Client]:
    """A running chromedriver."""
    program = shutil.which("chromedriver")
    if program is None or shutil.which("chromium") is None:
        missing("chromium with chromedriver")
    port = free_port()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as wire:
        command = [str(program), f"--port={port}", "--log-level=OFF"]
        with server(
            command, log=folder / "chromedriver.log", ready=lambda: wire.get("/status").is_success, timeout=PATIENCE_S
        ):
            yield wire


@contextmanager
def session(wire: httpx.Client, folder: Path, *, script: bool = True) -> Iterator[Browser]:
    """A fresh browser with a profile of its own; `script=False` forbids scripts. BROWSER_PICTURES names a folder."""
    profile = folder / "profile"
    named = os.environ.get("BROWSER_PICTURES")
    pictures = Path(named) if named else None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
    if not script:
        options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    made = wire.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
    browser = Browser(wire, made["sessionId"], pictures)
    try:
        browser.width(1400)
        yield browser
    finally:
        wire.delete(f"/session/{browser.session}")
        shutil.rmtree(profile, ignore_errors=True)
