"""Chromium without a screen, driven through the DevTools protocol over two pipes."""

import base64
import contextlib
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
_COMMANDS, _ANSWERS = 3, 4  # the descriptors of --remote-debugging-pipe
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # a container's root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)


class PageError(AssertionError):
    """The page threw, or the protocol refused a command."""


class Page:
    """One tab. It keeps what the page asks the network for, and what it logs."""

    def __init__(self, browser: "_Pipe", session: str, downloads: Path) -> None:
        self._browser, self._session, self.downloads = browser, session, downloads
        self.requests: list[str] = []
        self.problems: list[str] = []  # errors in its console, exceptions, blocked loads
        browser.listener = self._notice
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, params, self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if details := answer.get("exceptionDetails"):
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 120.0) -> Any:
        """The first value of the expression that is true."""
        return self.wait_until(lambda: self.evaluate(expression), expression, seconds)

    def wait_until(self, happened: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
        """The first value of the call that is true."""
        latest = time.monotonic() + seconds
        while not (value := happened()):
            if time.monotonic() > latest:
                raise PageError(f"{what}: {value!r}; {self.problems}")
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """As a user chooses them in the dialogue of an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str, *, code: int = 0, text: str = "") -> None:
        """One key, as from a keyboard."""
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def show_as(self, width: int, height: int, *, dark: bool = False, still: bool = True) -> None:
        """The window's size in CSS pixels, and what the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, target: Path) -> None:
        """The whole page, also what lies below the window."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        target.write_bytes(base64.b64decode(picture))

    def _notice(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}"[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"])[:500])


class _Pipe:
    """Messages of the protocol: JSON with a zero byte behind each."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.listener: Callable[[dict[str, Any]], None] = lambda message: None
        self._ready = selectors.DefaultSelector()
        self._ready.register(answers, selectors.EVENT_READ)

    def call(self, method: str, params: dict[str, Any], session: str = "") -> dict[str, Any]:
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": params}
        if session:
            order["sessionId"] = session
        content = json.dumps(order).encode() + b"\0"
        while content:
            content = content[os.write(self._commands, content) :]
        while True:
            message = self._next()
            if message.get("id") == number:
                if error := message.get("error"):
                    raise PageError(f"{method}: {error}")
                return dict(message["result"])
            if "method" in message:
                self.listener(message)

    def _next(self, seconds: float = 300.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not self._ready.select(seconds):
                raise PageError("Chromium does not answer")
            if not (block := os.read(self._answers, 1 << 20)):
                raise PageError("Chromium has ended")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Page]:
    """An empty page of a new browser, which ends with the context."""
    assert CHROMIUM
    commands_out, commands = os.pipe()
    answers, answers_in = os.pipe()

    def place() -> None:
        # Copied above what is to be replaced first, so that neither is closed by the other.
        command, answer = os.dup(commands_out), os.dup(answers_in)
        os.dup2(command, _COMMANDS)
        os.dup2(answer, _ANSWERS)

    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place,  # noqa: PLW1509
        close_fds=False,
        start_new_session=True,
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        pipe = _Pipe(commands, answers)
        target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        yield Page(pipe, session, profile / "downloads")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        os.close(commands)
        os.close(answers)
        shutil.rmtree(profile, ignore_errors=True)
