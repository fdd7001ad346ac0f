"""Markdown whose code is run: blocks in order, as a reader would, and what they print is compared.

A ```python block runs in the namespace of its chapter; a ```text block right behind it is what it
prints, wherever its lines break, and an error that ends it as `Type: message`. A ```bash block
runs with `dpkit` and `python` of this environment. `<!-- not run: reason -->` before a block
leaves it out.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, what it is, why it is left out, what it should print."""

    line: int
    kind: str
    code: str
    mark: str = ""
    printed: str | None = None

    @property
    def left_out(self) -> str:
        """The reason why it is not run; empty if it is."""
        if self.mark == "test command":
            return "CI runs it"
        return self.mark.removeprefix("not run:").strip() if self.mark[:8] == "not run:" else ""


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a chapter in order, each with the text that follows it at once."""
    found = list(_BLOCK.finditer(text))
    for place, block in enumerate(found):
        if block["kind"] == "text":
            continue
        printed = None
        if place + 1 < len(found) and found[place + 1]["kind"] == "text":
            between = text[block.end() : found[place + 1].start()]
            printed = found[place + 1]["code"] if not between.strip() else None
        line = text.count("\n", 0, block.start("code")) + 1
        yield Block(line, block["kind"], block["code"], block["mark"] or "", printed)


def run(path: Path, folder: Path) -> dict[str, object]:
    """Run a chapter's blocks in a folder; the namespace they leave, AssertionError where untrue."""
    module = types.ModuleType("chapter_" + re.sub(r"\W", "_", path.stem))
    sys.modules[module.__name__] = module
    text = path.read_text()
    with contextlib.chdir(folder):
        for block in blocks(text):
            if block.kind in ("python", "bash") and not block.left_out:
                said = _python(block, module, path) if block.kind == "python" else _bash(block)
                wanted = block.printed
                where = f"{path.name}:{block.line}"
                if wanted is not None:
                    assert said.split() == wanted.split(), f"{where} prints:\n{said}"
                else:
                    assert not said.startswith("Error in "), f"{where}: {said}"
    return vars(module)


def _python(block: Block, module: types.ModuleType, path: Path) -> str:
    out = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
    try:
        with contextlib.redirect_stdout(out):
            exec(code, vars(module))  # noqa: S102
    except Exception as error:
        if block.printed is None:
            raise
        return f"{out.getvalue()}{type(error).__name__}: {error}"
    return out.getvalue()


def _bash(block: Block) -> str:
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(places)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else f"Error in shell: {done.stderr}"
