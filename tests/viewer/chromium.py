"""A headless Chromium driven over its DevTools protocol: open, click, type, look, listen."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
TIMEOUT_S = 30.0
_KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27}


class Browser:
    """A running Chromium."""

    def __init__(self, port: int) -> None:
        self.http = f"http://127.0.0.1:{port}"

    def tab(self, width: int = 1280, height: int = 860, *, dark: bool = False) -> Tab:
        """A new, empty tab."""
        with urlopen(Request(f"{self.http}/json/new?about:blank", method="PUT")) as response:
            target = json.load(response)
        return Tab(target["webSocketDebuggerUrl"], width, height, dark)


class Tab:
    """A tab, and what the browser complained of in it."""

    def __init__(self, address: str, width: int, height: int, dark: bool) -> None:
        self.complaints: list[str] = []
        self._open = ExitStack()
        # Events of an idle tab pile up unread; without bounds and pings that blocks nobody.
        connection = connect(
            address, max_size=None, max_queue=None, ping_interval=None, close_timeout=1
        )
        self._socket = self._open.enter_context(connection)
        self._ids = itertools.count(1)
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        metrics = {"width": width, "height": height, "mobile": width < 600}
        scale = 2 if width < 600 else 1
        self.send("Emulation.setDeviceMetricsOverride", deviceScaleFactor=scale, **metrics)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)

    def send(self, method: str, **params: object) -> dict:
        """A command and its result; events that come meanwhile are taken note of."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(TIMEOUT_S))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]
            self._note(message)

    def goto(self, url: str, ready: str = "main:not([aria-busy]) .page") -> Tab:
        """Open an address anew; returns when what matches `ready` is there."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait_for(ready)
        return self

    def js(self, expression: str) -> object:
        """The value of an expression, a promise awaited."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression holds."""
        end = time.monotonic() + TIMEOUT_S
        while not self.js(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never held: {condition}"
            time.sleep(0.03)

    def wait_for(self, selector: str) -> None:
        self.wait(f"document.querySelector({json.dumps(selector)})")

    def texts(self, selector: str) -> list[str]:
        found = self.js(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".map((node) => node.innerText ?? node.textContent)"
        )
        assert isinstance(found, list)
        return found

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def count(self, selector: str) -> int:
        return len(self.texts(selector))

    def hover(self, selector: str) -> tuple[float, float]:
        """Moves the mouse to the middle of the first that matches."""
        place = self.js(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({block: 'center'}); const box = node.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        assert isinstance(place, list)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        return place[0], place[1]

    def click(self, selector: str) -> None:
        x, y = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key by its name; letters and signs write themselves."""
        text = (
            {"text": "\r" if key == "Enter" else key} if key not in _KEYS or key == "Enter" else {}
        )
        code = {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def type(self, text: str) -> None:
        for letter in text:
            self.press(letter)

    def choose(self, label: str, value: str) -> None:
        """Takes an option of a choice by its label."""
        node = f"document.querySelector('select[aria-label={json.dumps(label)}]')"
        self.js(f"{node}.value = {json.dumps(value)}")
        self.js(f"void {node}.dispatchEvent(new Event('change'))")

    def upload(self, selector: str, path: Path) -> None:
        """Chooses a file in a file field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """The tab, or all of the page, as a PNG file."""
        result = self.send("Page.captureScreenshot", captureBeyondViewport=full, **self._clip(full))
        path.write_bytes(base64.b64decode(result["data"]))

    def close(self) -> None:
        self.send("Page.close")
        self._open.close()

    def _clip(self, full: bool) -> dict[str, object]:
        if not full:
            return {}
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def _note(self, message: dict) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))


@contextmanager
def running() -> Iterator[Browser]:
    """A browser of its own, with a profile that is thrown away."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(_port(Path(profile) / "DevToolsActivePort", process))
        finally:
            process.terminate()
            process.wait(10)


def _port(note: Path, process: subprocess.Popen[bytes]) -> int:
    """Chromium writes the port that it took into its profile."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        if note.exists() and (lines := note.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise RuntimeError(f"chromium did not start (exit status {process.poll()})")
