"""The course's promises, measured on one core: `python benchmarks/course.py`. Linux only.

Parts: imports, first_cell, notebooks (seconds and peak memory, through a JupyterLab server),
interaction (needs Chromium), repeat (every notebook by nbval, --times times in a row).
Writes what it found, part by part, into --output; `repeat` goes on where it was stopped.
Bars are held against seconds by the clock, which is what a learner waits: measure on an idle
machine. Processor seconds stand beside them, with the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BARS = {
    "import s": 0.5,
    "first cell s": 5.0,
    "first interaction s": 15.0,
    "kernel MB": 1024.0,
    "together MB": 1536.0,
}
CORES = os.sched_getaffinity(0)
ONE = {min(CORES)}


def cells(path: Path) -> list[str]:
    """The code of a notebook, cell by cell."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def imports(rounds: int = 7) -> dict[str, object]:
    """Seconds to import the accountants in a fresh Python, files in the cache."""
    code = "from time import perf_counter as c, process_time as p; a, b = c(), p(); "
    code += "import dpkit.accountants; print(c() - a, p() - b)"
    command = [sys.executable, "-c", code]
    os.sched_setaffinity(0, ONE)
    return times("import", [
        [*map(float, subprocess.run(command, capture_output=True, check=True).stdout.split())]
        for _ in range(rounds)
    ])  # fmt: skip


def times(name: str, rounds: list[list[float]]) -> dict[str, object]:
    """Medians of seconds by the clock and of processor seconds, and every round's."""
    clock, processor = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {f"{name} s": clock, f"{name} processor s": processor, "rounds": rounds}


def spent(*processes: object) -> float:
    """Processor seconds of these processes and all below them so far."""
    each = {p for top in processes for p in (top, *top.children(recursive=True))}  # type: ignore[attr-defined]
    return float(sum(sum(p.cpu_times()[:2]) for p in each))


class Server:
    """A JupyterLab server on one core that runs notebooks' cells; knows what memory it takes."""

    def __enter__(self) -> Server:
        import psutil

        os.sched_setaffinity(0, ONE)
        self.folder = tempfile.TemporaryDirectory(prefix="dpkit-course-")
        self.address = f"127.0.0.1:{free_port()}"
        host, port = self.address.split(":")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                   f"--ip={host}", f"--port={port}", "--IdentityProvider.token=course",
                   f"--ServerApp.root_dir={ROOT / 'notebooks'}"]  # fmt: skip
        private = {key: f"{self.folder.name}/{key}" for key in
                   ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
                    "XDG_STATE_HOME", "XDG_DATA_HOME", "HOME")}  # fmt: skip
        with (Path(self.folder.name) / "log").open("w") as log:
            self.process = psutil.Popen(
                command, env={**os.environ, **private}, stdout=log, stderr=subprocess.STDOUT
            )
        self._until_up(time.monotonic() + 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()

    def ask(self, path: str, method: str = "GET", body: object = None) -> bytes:
        """The server's answer to a request."""
        from urllib.request import Request, urlopen

        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{self.address}/{path}", data, method=method)
        request.add_header("Authorization", "token course")
        with urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def _until_up(self, end: float) -> None:
        while True:
            try:
                self.ask("api/status")
                self.ask("lab")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)


class Kernel:
    """One kernel of a server: runs cells over the websocket as a page does."""

    def __init__(self, server: Server) -> None:
        """Start it and wait until it answers."""
        import psutil
        from websocket import create_connection

        self.server = server
        before = set(server.process.children())
        started = json.loads(server.ask("api/kernels", "POST", {"name": "python3"}))
        self.id = started["id"]
        self.socket = create_connection(
            f"ws://{server.address}/api/kernels/{self.id}/channels",
            header={"Authorization": "token course"}, timeout=600,
        )  # fmt: skip
        self.request("kernel_info_request", {})
        (pid,) = {child.pid for child in set(server.process.children()) - before}
        self.process = psutil.Process(pid)

    def request(self, kind: str, content: dict[str, object]) -> str:
        """Send a request, wait until the kernel is idle again; the error it told, or ''."""
        number, error = os.urandom(8).hex(), ""
        header = {"msg_id": number, "msg_type": kind, "session": self.id, "username": "",
                  "version": "5.3"}  # fmt: skip
        self.socket.send(json.dumps({"header": header, "parent_header": {}, "metadata": {},
                                     "content": content, "channel": "shell"}))  # fmt: skip
        answered = idle = False
        while not (answered and idle):
            told = unpacked(self.socket.recv())
            if told["parent_header"].get("msg_id") != number:
                continue
            kind_told = told["header"]["msg_type"]
            answered |= kind_told.endswith("_reply")
            idle |= kind_told == "status" and told["content"]["execution_state"] == "idle"
            if kind_told == "error":
                error = "{ename}: {evalue}".format(**told["content"])
        return error

    def run(self, code: str) -> str:
        """Run a cell."""
        return self.request("execute_request", {"code": code, "silent": False})

    def peak(self) -> float:
        """The kernel's own largest resident memory so far, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024

    def close(self) -> None:
        """Shut the kernel down and wait until it is gone."""
        self.socket.close()
        self.server.ask(f"api/kernels/{self.id}", "DELETE")
        self.process.wait(30)


def unpacked(frame: str | bytes) -> dict[str, dict[str, str]]:
    """A message of the server: JSON, in a binary frame with its buffers behind it."""
    if isinstance(frame, bytes):
        start, end = (int.from_bytes(frame[at : at + 4], "big") for at in (4, 8))
        count = int.from_bytes(frame[:4], "big")
        frame = frame[start : end if count > 1 else len(frame)].decode()
    return dict(json.loads(frame))


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        return int(at.getsockname()[1])


class Watch(threading.Thread):
    """Samples the resident memory of a process and all below it; pages shared count twice."""

    def __init__(self, process: object) -> None:
        """Begin at once."""
        super().__init__(daemon=True)
        self.process, self.peak, self.over = process, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        """Every 50 ms."""
        import psutil

        while not self.over.wait(0.05):
            total = 0
            for each in (self.process, *self.process.children(recursive=True)):  # type: ignore[attr-defined]
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total / 2**20)


def first_cell(rounds: int = 3) -> dict[str, object]:
    """Seconds of the playground's first cell in a kernel that has just started."""
    seconds = []
    with Server() as server:
        for _ in range(rounds):
            kernel = Kernel(server)
            started, before = time.perf_counter(), spent(server.process)
            assert not kernel.run(cells(ROOT / "notebooks" / "00_playground.ipynb")[0])
            seconds.append([time.perf_counter() - started, spent(server.process) - before])
            kernel.close()
    return times("first cell", seconds)


def notebooks() -> dict[str, object]:
    """Every notebook in a kernel of its own: seconds, errors, memory of kernel and of all."""
    found: dict[str, object] = {}
    with Server() as server:
        for path in NOTEBOOKS:
            kernel = Kernel(server)
            watch, below = Watch(server.process), Watch(kernel.process)
            started = time.perf_counter()
            errors = [error for code in cells(path) if (error := kernel.run(code))]
            seconds = time.perf_counter() - started
            for each in (watch, below):
                each.over.set()
            found[path.stem] = {
                "seconds": seconds, "kernel MB": max(kernel.peak(), below.peak),
                "together MB": watch.peak, "errors": errors,
            }  # fmt: skip
            print(path.stem, json.dumps(found[path.stem]), flush=True)
            kernel.close()
    return found


def interaction(rounds: int = 3) -> dict[str, object]:
    """From JupyterLab shown, no kernel yet, to a plot that a slider has changed.

    Processor seconds are those of server and kernel, which share the one core; the browser's,
    on the learner's own machine and beside them, are told apart.
    """
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from harness import Lab, launch
    from playwright.sync_api import sync_playwright

    seconds = []
    os.sched_setaffinity(0, ONE)
    with Lab() as lab:
        os.sched_setaffinity(0, CORES)
        with sync_playwright() as playwright:
            chromium = launch(playwright)
            for _ in range(rounds):
                seconds.append(_first_interaction(lab, chromium))
            chromium.close()
    found = times("first interaction", [each[:2] for each in seconds])
    return {**found, "browser processor s": statistics.median(each[2] for each in seconds)}


def _first_interaction(lab: object, chromium: object) -> list[float]:
    import shutil

    import psutil

    here, server = psutil.Process(), psutil.Process(lab.process.pid)  # type: ignore[attr-defined]
    shutil.copy(ROOT / "notebooks" / "00_playground.ipynb", lab.root)  # type: ignore[attr-defined]
    page = chromium.new_context(viewport={"width": 1280, "height": 1400}).new_page()  # type: ignore[attr-defined]
    page.set_default_timeout(180_000)
    page.goto(f"http://127.0.0.1:{lab.port}/lab?token={lab.token}&reset")  # type: ignore[attr-defined]
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    page.wait_for_selector(".jp-Launcher, .jp-DirListing-content", state="visible")
    started, marks = time.perf_counter(), (spent(server), spent(here))
    page.evaluate("""async () => {
        await jupyterapp.commands.execute('docmanager:open', {path: '00_playground.ipynb'});
        const panel = jupyterapp.shell.currentWidget;
        await panel.context.sessionContext.ready;
        const code = panel.content.widgets.findIndex(c => c.model.type === 'code');
        panel.content.activeCellIndex = code;
        void jupyterapp.commands.execute('notebook:run-cell') }""")
    row = ".dpk:has(.dpk-label:text-is('Noise multiplier σ'))"
    slider = page.locator(f"{row} input[type=range]").first
    slider.wait_for(state="visible")
    plot = ".jp-OutputArea .js-plotly-plot"
    page.wait_for_selector(f"{plot} path", state="attached")
    look = "css => [...document.querySelectorAll(css)].map(e => e.innerHTML).join()"
    before = page.evaluate(look, plot)
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"([css, old]) => ({look})(css) !== old", arg=[plot, before])
    clock, ours = time.perf_counter() - started, spent(server) - marks[0]
    seconds = [clock, ours, spent(here) - marks[1] - ours]
    page.context.close()
    for kernel in lab._kernels():  # type: ignore[attr-defined]
        lab._ask(f"api/kernels/{kernel}", method="DELETE")  # type: ignore[attr-defined]
    return seconds


def repeat(times: int, before: dict[str, object], save: object) -> dict[str, object]:
    """Every notebook by nbval, `times` times in a row; a flake is a call that failed."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True,
                            capture_output=True).stdout.strip()  # fmt: skip
    same = before.get("commit") == commit
    found = before if same else {"commit": commit, "runs": 0, "flakes": [], "seconds": []}
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env",
               "--nbval-cell-timeout", "120", "-p", "no:cacheprovider"]  # fmt: skip
    while len(found["seconds"]) < times:  # type: ignore[arg-type]
        started = time.perf_counter()
        for path in NOTEBOOKS:
            done = subprocess.run(
                [*command, str(path)], capture_output=True, text=True, cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            found["runs"] += 1  # type: ignore[operator]
            if done.returncode:
                flake = {"notebook": path.stem, "returned": done.returncode,
                         "said": done.stdout[-1500:], "errors": done.stderr[-1500:]}  # fmt: skip
                found["flakes"].append(flake)  # type: ignore[attr-defined]
        found["seconds"].append(time.perf_counter() - started)  # type: ignore[attr-defined]
        save(found)  # type: ignore[operator]
        print(len(found["seconds"]), "of", times, "flakes", len(found["flakes"]), flush=True)  # type: ignore[arg-type]
    return found


def missed(part: dict[str, object]) -> list[str]:
    """The bars that figures miss, each in words; errors too."""
    said = []
    for name, value in part.items():
        if isinstance(value, dict):
            said += [f"{name}: {words}" for words in missed(value)]
        elif name in BARS and value > BARS[name]:  # type: ignore[operator]
            said.append(f"{name} is {value:.2f}, the bar is {BARS[name]}")
        elif name in ("errors", "flakes") and value:
            said.append(f"{name}: {value}")
    return said


def main() -> int:
    parts = {"imports": imports, "first_cell": first_cell, "notebooks": notebooks,
             "interaction": interaction}  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[*parts], help=", ".join((*parts, "repeat")))
    parser.add_argument("--times", type=int, default=20, help="how often repeat runs the course")
    parser.add_argument("--output", type=Path, help="JSON, added to part by part")
    options = parser.parse_args()
    old = options.output and options.output.exists()
    result = json.loads(options.output.read_text()) if old else {}
    packages = ("numpy", "scipy", "torch", "jupyterlab", "ipykernel", "ipywidgets", "plotly")

    def save(name: str, found: dict[str, object]) -> None:
        where = {"machine": f"{platform.machine()}, {len(CORES)} cores, {len(ONE)} used",
                 "python": platform.python_version(), "load": os.getloadavg()[0],
                 **{package: version(package) for package in packages}}  # fmt: skip
        result[name] = {**found, "where": where}
        if options.output:
            options.output.write_text(json.dumps(result, indent=1) + "\n")

    trouble = []
    for name in options.parts:
        if name == "repeat":
            found = repeat(options.times, result.get(name, {}), lambda f: save("repeat", f))
        else:
            found = parts[name]()
            save(name, found)
        print(name, json.dumps(found, indent=1), flush=True)
        trouble += [f"{name}: {words}" for words in missed(found)]
    print("\n".join(trouble) or "Every bar is met.")
    return int(bool(trouble))


if __name__ == "__main__":
    sys.exit(main())
