"""`dpkit lecture`: a lesson without code, in large letters, for this machine alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from dpkit import cli_lab
from dpkit.cli import main


def test_a_lesson_without_code_for_this_machine_alone(tmp_path):
    pytest.importorskip("voila", reason='Voila is missing: pip install "dpkit[lecture]"')
    words = ["lecture", "01_what_is_dp", "--no-browser", "--theme=dark"]
    folders = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
    with (tmp_path / "log").open("w") as log:
        lecture = subprocess.Popen(
            [sys.executable, "-m", "dpkit", *words], env={**os.environ, **folders}, cwd=tmp_path,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        port = _port(lecture, time.monotonic() + 60)
        with urlopen(f"http://127.0.0.1:{port}/", timeout=120) as answer:
            policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    finally:
        os.killpg(lecture.pid, signal.SIGTERM)
        lecture.wait(30)
    assert "default-src 'self'" in policy and "http" not in policy
    assert "What is differential privacy?" in page and "zoom: 1.4" in page
    assert 'data-jp-theme-name="JupyterLab Dark"' in page or "theme-dark" in page
    assert page.count("application/vnd.jupyter.widget-view+json") >= 4
    assert "RandomisedResponsePanel()" not in page
    assert not re.search("There was an error", page)
    assert "Nobody is asked for a password" in (tmp_path / "log").read_text()


def _port(lecture, end):
    """Where the server listens; on 127.0.0.1 and nowhere else."""
    while time.monotonic() < end and lecture.poll() is None:
        tree = [psutil.Process(lecture.pid), *psutil.Process(lecture.pid).children(recursive=True)]
        for process in tree:
            if "voila" in process.cmdline():
                found = [c.laddr for c in process.net_connections("inet") if c.status == "LISTEN"]
                assert all(address.ip == "127.0.0.1" for address in found), found
                for address in found:
                    try:
                        urlopen(f"http://127.0.0.1:{address.port}/none", timeout=5)
                    except URLError as error:
                        if hasattr(error, "code"):
                            return address.port
        time.sleep(0.2)
    raise AssertionError("Voila does not listen")


def test_without_voila_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli_lab.importlib.util, "find_spec", lambda name: None)
    assert main(["lecture", "01_what_is_dp"]) == 2
    assert 'pip install "dpkit[lecture]"' in capsys.readouterr().err


def test_an_unknown_lesson_is_told_with_those_that_are_there(capsys):
    assert main(["lecture", "nonsense"]) == 2
    assert "00_playground" in capsys.readouterr().err
