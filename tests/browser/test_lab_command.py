"""`dpkit lab`: the README's first command ends in a JupyterLab that shows the playground."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from harness import _free_port

pytestmark = pytest.mark.browser


def test_dpkit_lab_opens_the_playground(browser, tmp_path):
    port = _free_port()
    log = tmp_path / "lab.log"
    folders = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR",
               "IPYTHONDIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR")}  # fmt: skip
    command = [sys.executable, "-m", "dpkit", "lab", "--no-browser", f"--port={port}"]
    with log.open("w") as out:
        lab = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **folders},
            start_new_session=True,
            cwd=tmp_path,
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\S+token=\w+", log.read_text())):
            assert lab.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        page = browser.new_page()
        page.goto(found[0])
        page.wait_for_function(
            "() => /how much does privacy cost/.test(document.body.innerText)", timeout=60_000
        )
        page.close()
    finally:
        # To the command alone, which ends its server; that waits for a kernel that may be busy.
        lab.terminate()
        lab.wait(90)
