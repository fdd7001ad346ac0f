"""Drives real JupyterLab in headless Chromium: own folders, own port, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Playwright

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "docmanager-extension/plugin": {"autosave": False},
}
_THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
_LOG_TROUBLE = re.compile(r"Traceback|\bERROR\b|\[E |CRITICAL|rate exceeded|restarting kernel")
# a page that is reloaded in the midst of a stream closes the socket that the server writes to
_PAGE_LEFT = re.compile(r"(StreamClosedError|WebSocketClosedError)[^\n]*$")
_ERROR_OUTPUTS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr']"


def chromium_trouble() -> str:
    """Why no browser test can run here, or an empty string."""
    found = Path(CHROMIUM).is_file() or shutil.which(CHROMIUM)
    return "" if found else f"no Chromium at {CHROMIUM}; set CHROMIUM to its path"


def launch(playwright: Playwright) -> Browser:
    """The one headless browser of a test session."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS, headless=True)


def notebook_of(cells: Sequence[str]) -> dict[str, Any]:
    """A notebook document with these code cells."""
    made = [
        {
            "cell_type": "code",
            "id": f"cell{number}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(cells)
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


class Lab:
    """One JupyterLab server in a folder of its own; a context manager."""

    def __init__(self, *, environment: dict[str, str] | None = None, theme: str = "light") -> None:
        """Prepare folders and settings; nothing runs before `with`."""
        self.folder = Path(tempfile.mkdtemp(prefix="dpkit-lab-"))
        self.root = self.folder / "root"
        self.root.mkdir()
        self.log = self.folder / "server.log"
        self.token = "dpkit-test"
        self.port = _free_port()
        self._environment = environment or {}
        self.use_theme(theme)

    def use_theme(self, theme: str) -> None:
        """Light or dark, for pages opened from now on."""
        settings = {**_SETTINGS, "apputils-extension/themes": {"theme": _THEMES[theme]}}
        for name, value in settings.items():
            file = self.folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value))

    def __enter__(self) -> Lab:
        """Start the server and wait until it answers."""
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0"),
            *(f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}"),
            *("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=self._whole_environment(),
                cwd=self.root,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_for_answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut kernels and server down, whatever happened, and remove the folder."""
        for kernel in self._kernels():
            with contextlib.suppress(OSError):
                self._ask(f"api/kernels/{kernel}", method="DELETE")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def open(
        self,
        browser: Browser,
        content: Path | Sequence[str],
        *,
        width: int = 1280,
        height: int = 1400,
        scheme: str = "light",
    ) -> Iterator[Notebook]:
        """Open a copy of a notebook, or one made of these code cells, in a fresh page."""
        name = f"test{len(list(self.root.glob('*.ipynb')))}.ipynb"
        made = json.loads(content.read_text()) if isinstance(content, Path) else None
        (self.root / name).write_text(json.dumps(made or notebook_of(content)))  # type: ignore[arg-type]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        address = f"http://127.0.0.1:{self.port}/lab/tree/{name}?token={self.token}&reset"
        notebook = Notebook(self, context, context.new_page(), self.log_length())
        try:
            notebook.load(address)
            yield notebook
        except BaseException as error:
            notebook.explain(error)
            raise
        finally:
            context.close()
            for kernel in self._kernels():
                self._ask(f"api/kernels/{kernel}", method="DELETE")

    def trouble(self, since: int = 0) -> list[str]:
        """What the server's and the kernels' log tells of errors."""
        lines = self.log.read_text().splitlines()[since:]
        found, number = [], 0
        while number < len(lines):
            size = _block(lines, number) if _LOG_TROUBLE.search(lines[number]) else 1
            block = "\n".join(lines[number : number + size])
            if _LOG_TROUBLE.search(block) and not _PAGE_LEFT.search(block):
                found.append(block)
            number += size
        return found[:5]

    def log_length(self) -> int:
        """Lines in the log so far."""
        return len(self.log.read_text().splitlines())

    def _whole_environment(self) -> dict[str, str]:
        private = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        paths = {name: str(self.folder / place) for name, place in private.items()}
        search = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, search))
        threads = {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}
        return {**os.environ, **threads, "PYTHONPATH": path, **paths, **self._environment}

    def _wait_for_answer(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"JupyterLab ended at once:\n{self.log.read_text()[-2000:]}")
            try:
                self._ask("api/status")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _kernels(self) -> list[str]:
        try:
            return [kernel["id"] for kernel in json.loads(self._ask("api/kernels"))]
        except OSError:
            return []

    def _ask(self, path: str, method: str = "GET") -> bytes:
        address = f"http://127.0.0.1:{self.port}/{path}"
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(address, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


@dataclass
class Notebook:
    """A notebook open in a page: run it, look at it, ask its kernel."""

    lab: Lab
    context: BrowserContext
    page: Page
    since: int = 0
    errors: list[str] = field(default_factory=list)

    def load(self, address: str) -> None:
        """Go to the notebook and wait until its kernel is ready."""
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.errors.append(f"pageerror: {error}"))
        self.page.on("console", self._said)
        self.page.goto(address, wait_until="domcontentloaded")
        self._settled()
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.context?.sessionContext"
            ".session?.kernel?.status === 'idle'"
        )

    def reload(self) -> None:
        """Load the page anew (unsaved outputs are saved first); the kernel runs on."""
        self.save()
        self.page.reload(wait_until="domcontentloaded")
        self._settled()

    def save(self) -> None:
        """Write the notebook with its outputs."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.context.save()")

    def run_all(self, *, wait: bool = True, seconds: float = 120.0) -> None:
        """Run every cell; wait until the kernel is idle and no cell shows [*]."""
        self.page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
        if wait:
            self.page.wait_for_function(
                """() => {
                    const panel = jupyterapp.shell.currentWidget;
                    const code = panel.content.widgets.filter(c => c.model.type === 'code');
                    const source = c => c.model.sharedModel.getSource().trim();
                    return code.every(c => !source(c) || (c.model.executionCount
                        && c.model.executionState !== 'running'))
                        && panel.context.sessionContext.session.kernel.status === 'idle' }""",
                timeout=1000 * seconds,
            )

    def run_cell(self, index: int, seconds: float = 60.0) -> None:
        """Run one cell (again)."""
        self.page.evaluate(
            """index => { const panel = jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = index;
                return jupyterapp.commands.execute('notebook:run-cell') }""",
            index,
        )

    def kernel(self, code: str) -> str:
        """Run code in the notebook's kernel, beside its cells; returns what it printed."""
        answer = self.page.evaluate(
            """async code => {
                const kernel = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
                const future = kernel.requestExecute({code, store_history: false});
                let out = '';
                future.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
                    if (m.header.msg_type === 'error')
                        out += 'FAILED ' + m.content.ename + ': ' + m.content.evalue };
                await future.done;
                return out }""",
            code,
        )
        if "FAILED " in answer:
            raise AssertionError(f"in the kernel: {answer}")
        return str(answer).strip()

    def until_kernel(self, condition: str, seconds: float = 15.0) -> None:
        """Wait until an expression is true in the kernel."""
        end = time.monotonic() + seconds
        while self.kernel(f"print(bool({condition}))") != "True":
            assert time.monotonic() < end, f"never true in the kernel: {condition}"
            self.page.wait_for_timeout(50)

    def control(self, label: str, inner: str = "input") -> Any:
        """The form element of the control with this label."""
        row = self.page.locator(
            f".dpk:has(.dpk-label:text-is({json.dumps(label, ensure_ascii=False)}))"
        )
        return row.locator(inner).first

    def latencies(self, label: str, watch: str, count: int, pause: float = 0.1) -> list[float]:
        """Milliseconds from each of `count` arrow keys on a slider to a changed DOM at `watch`."""
        track = self.control(label, "input[type=range]")
        track.scroll_into_view_if_needed()
        track.focus()
        self.page.evaluate(_STOPWATCH, watch)
        for number in range(count):
            self.page.keyboard.press("ArrowRight" if number % 20 < 10 else "ArrowLeft")
            self.page.wait_for_function("n => window.__times.length >= n", arg=number + 1)
            self.page.wait_for_timeout(1000 * pause)
        return sorted(self.page.evaluate("() => window.__times"))

    def assert_clean(self, *, allow: str = "(?!)") -> None:
        """Fail on any error in page, notebook outputs, server or kernel log."""
        shown = self.page.evaluate(
            """css => [...document.querySelectorAll('.jp-OutputArea')].flatMap(o =>
                [...o.querySelectorAll(css)].map(e => e.innerText.slice(0, 600)).concat(
                /Error displaying widget|Error creating widget|model not found/.test(o.innerText)
                    ? [o.innerText.slice(0, 300)] : []))""",
            _ERROR_OUTPUTS,
        )
        found = [
            t
            for t in (*self.errors, *shown, *self.lab.trouble(self.since))
            if not re.search(allow, t)
        ]
        assert not found, "\n".join(found)

    def explain(self, error: BaseException) -> None:
        """Add to a failure what page and log said, and take a picture of it."""
        with contextlib.suppress(Exception):
            self.shot(f"failed-{os.getpid()}-{time.time_ns() // 10**9}")
        for line in (*self.errors, *self.lab.trouble(self.since)):
            error.add_note(line)

    def shot(self, name: str) -> Path | None:
        """A picture in the folder that DPKIT_SHOTS names, to be looked at; none without it."""
        folder = os.environ.get("DPKIT_SHOTS")
        if not folder:
            return None
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{name}.png"
        self.page.screenshot(path=str(path))
        return path

    def _settled(self) -> None:
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell", state="visible")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        self.page.evaluate("() => jupyterapp.shell.collapseLeft()")

    def _said(self, message: Any) -> None:
        # a reload cancels requests; the browser calls that an error of loading
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(f"console: {message.text}")


def summary(times: Sequence[float]) -> str:
    """Median, 95th percentile and largest of some milliseconds, to print."""
    ordered = sorted(times)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {statistics.median(ordered):.0f} ms, p95 {late:.0f}, max {ordered[-1]:.0f}"


_STOPWATCH = """css => {
    window.__times = []; let start = null, old = null;
    const seen = () => document.querySelector(css)?.outerHTML;
    document.addEventListener('keydown', e => {
        if (/^Arrow/.test(e.key)) { old = seen(); start = performance.now() } }, true);
    const look = () => { if (start !== null && seen() !== old) {
        window.__times.push(performance.now() - start); start = null } };
    new MutationObserver(look).observe(document.querySelector('.jp-NotebookPanel'),
        {subtree: true, childList: true, attributes: true, characterData: true}) }"""


def _block(lines: Sequence[str], start: int) -> int:
    """How many lines a message has: what is indented, and the exception under a traceback."""
    end = start + 1
    while end < len(lines) and (not lines[end] or lines[end][0].isspace()):
        end += 1
    named = lines[start].startswith("Traceback") and end < len(lines)
    return end - start + named


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
