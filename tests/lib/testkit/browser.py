"""A headless Chromium, driven over its DevTools protocol: what a page asks for, says and looks like."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from testkit.layout import ROOT

__all__ = ["AXE", "Browser", "Page", "need_browser", "open_browser"]

AXE = ROOT / "tests" / "interop" / "node" / "node_modules" / "axe-core" / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 120.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-features=Translate,OptimizationHints,MediaRouter,AutofillServerCommunication",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
)


def _program() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def need_browser() -> None:
    """Skip the calling test, visibly, when Chromium or axe-core is not there."""
    if _program() is None:
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; run: npm ci --prefix tests/interop/node")


@dataclass(slots=True)
class Page:
    """One page; give it an address with `load`."""

    _browser: Browser
    _session: str
    complaints: list[str] = field(default_factory=list)
    """What the page wrote to the console, refusals of its content policy and exceptions included."""
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for, the page's own first."""

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command of the protocol, and return its answer."""
        return self._browser.send(method, parameters, session=self._session)

    def load(self, address: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Load an address and wait until all of it is there."""
        if headers is not None:
            self.send("Network.setExtraHTTPHeaders", headers=dict(headers))
        answer = self.send("Page.navigate", url=address)
        assert not answer.get("errorText"), answer
        self._browser.wait_for("Page.loadEventFired", self._session)

    def show(self, *, width: int, height: int = 900, dark: bool = False, media: str = "screen", scale: int = 1) -> None:
        """Choose size and colours; *media* is ``screen`` or ``print``."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of JavaScript, which may be a promise; the page's content policy does not hold it back."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is visible, or of the *whole* page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """Return the page as it would be printed."""
        answer = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def take(self, event: Mapping[str, Any]) -> None:
        """Note an event that is about this page."""
        method, told = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"{told['type']}: {[each.get('value') for each in told['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(f"{told['entry']['level']}: {told['entry']['text']}")


class Browser:
    """A running browser; for one thread."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self._pages: dict[str, Page] = {}
        self._seen: list[tuple[str, str]] = []

    def page(self) -> Page:
        """Open an empty page."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.send(f"{domain}.enable")
        return page

    def send(self, method: str, parameters: Mapping[str, Any], *, session: str | None = None) -> dict[str, Any]:
        """Give a command and return its answer; what is told in between is noted."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            found = self._receive()
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                result: dict[str, Any] = found["result"]
                return result

    def wait_for(self, method: str, session: str) -> None:
        """Wait until an event has come since it was waited for last."""
        while (method, session) not in self._seen:
            self._receive()
        self._seen.remove((method, session))

    def _receive(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._connection.recv(timeout=_SECONDS))
        if "method" in found:
            session = str(found.get("sessionId", ""))
            self._seen = [*self._seen[-200:], (found["method"], session)]
            if session in self._pages:
                self._pages[session].take(found)
        return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser with an empty profile for the length of the block.

    It has no sandbox of its own where it runs as the administrator, as in a container: it loads our pages alone.
    """
    program = _program()
    assert program is not None, "ask need_browser first"
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        flags = [*_FLAGS, f"--user-data-dir={folder}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        process = subprocess.Popen(
            [program, *flags, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": folder},
        )  # fmt: skip
        try:
            with connect(_address(process, Path(folder)), max_size=None, compression=None) as connection:
                yield Browser(connection)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait until the browser says where it listens."""
    file = folder / "DevToolsActivePort"
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        lines = file.read_text().splitlines() if file.is_file() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError("the browser does not start")
