"""`dpkit lab` and `dpkit lecture`: the notebooks in JupyterLab, or their panels on a big screen."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_GRACE = 15.0
"""Seconds that a server has to end by itself, its kernels too."""

_OPEN = (
    "Nobody is asked for a password: whoever reaches this address can use the panels, and each"
    " visitor starts a kernel."
)
# Voila's page asks a public host for an icon font; a lesson says nothing to anyone.
_POLICY = (
    "default-src 'self' data: blob: ws: wss: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'"
)


def lab_options(parser: argparse.ArgumentParser) -> None:
    """What `dpkit lab` takes."""
    parser.description = "Open JupyterLab on the notebooks (the playground by default)."
    parser.add_argument("notebook", nargs="?", default="00_playground", help="which notebook")
    _server_options(parser)
    parser.set_defaults(run=_lab)


def lecture_options(parser: argparse.ArgumentParser) -> None:
    """What `dpkit lecture` takes."""
    parser.description = "Show a lesson's text and panels with Voila: no code, large letters."
    parser.epilog = _OPEN
    parser.add_argument("notebook", nargs="?", help="which lesson (a list of all by default)")
    _server_options(parser)
    parser.add_argument(
        "--ip", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    parser.set_defaults(run=_lecture)


def _server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument("--port", type=int, help="port of the server")


def _lab(options: argparse.Namespace) -> int:
    folder, stem = _found(options.notebook)
    _wanted("jupyterlab", "JupyterLab", "lab")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.default_url=/lab/tree/{stem}.ipynb"]
    command += ["--no-browser"] if options.no_browser else []
    command += [f"--port={options.port}"] if options.port else []
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with tempfile.TemporaryDirectory() as own:
        return _serve(command, os.environ | _quiet(Path(own)))


def _quiet(folder: Path) -> dict[str, str]:
    """What keeps JupyterLab from asking for news from the network, unless the reader wants them."""
    overrides = folder / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir()
    overrides.write_text(json.dumps(
        {"@jupyterlab/apputils-extension:notification":
            {"fetchNews": "false", "checkForUpdates": False}}
    ))  # fmt: skip
    paths = [str(folder), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def _lecture(options: argparse.Namespace) -> int:
    folder, stem = _found(options.notebook) if options.notebook else (_notebooks(), "")
    _wanted("voila", "Voila", "lecture")
    settings = {"headers": {"Content-Security-Policy": _POLICY}}
    command = [sys.executable, "-m", "voila", str(folder / f"{stem}.ipynb" if stem else folder)]
    command += [f"--Voila.ip={options.ip}", f"--Voila.tornado_settings={json.dumps(settings)}"]
    command += ["--template=dpkit", f"--theme={options.theme}", "--classic-tree"]
    command += ["--no-browser"] if options.no_browser else []
    command += [f"--port={options.port}"] if options.port else []
    templates = str(Path(__file__).parent / "lecture")
    paths = os.pathsep.join(filter(None, [templates, os.environ.get("JUPYTER_PATH")]))
    print(_OPEN, file=sys.stderr)
    return _serve(command, {**os.environ, "JUPYTER_PATH": paths})


def _serve(command: list[str], env: Mapping[str, str]) -> int:
    """Run a server until it ends; who ends this command ends the server, never one alone."""
    with subprocess.Popen(command, env=env) as server:

        def end(*_: object) -> None:
            server.terminate()
            # JupyterLab may wait for ever for a thread of its own.
            last = threading.Timer(_GRACE, server.kill)
            last.daemon = True
            last.start()

        # Ctrl-C reaches the server from the terminal too, which asks and saves before it ends.
        held = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None)}
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            if number := getattr(signal, name, None):
                held[number] = signal.signal(number, end)
        try:
            return server.wait()
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)


def _wanted(module: str, name: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{name} is not installed: pip install "dpkit[{extra}]".')


def _found(notebook: str) -> tuple[Path, str]:
    """The folder of the notebooks, and the name of one of them."""
    folder = _notebooks()
    stem = Path(notebook).name.removesuffix(".ipynb")
    there = sorted(path.stem for path in folder.glob("*.ipynb"))
    if stem not in there:
        raise ValueError(f"There is no notebook {stem!r}; there are: {', '.join(there)}.")
    return folder, stem


def _notebooks() -> Path:
    """The notebooks of the checkout, else a working copy of the installed ones."""
    beside = Path(__file__).resolve().parents[1] / "notebooks"
    if beside.is_dir():
        return beside
    installed = Path(sys.prefix) / "share" / "dpkit" / "notebooks"
    if not installed.is_dir():
        raise FileNotFoundError("The notebooks are not installed; reinstall dpkit.")
    copy = Path.cwd() / "dpkit-notebooks"
    copy.mkdir(exist_ok=True)
    for notebook in installed.glob("*.ipynb"):
        if not (copy / notebook.name).exists():
            shutil.copy(notebook, copy)
    return copy
