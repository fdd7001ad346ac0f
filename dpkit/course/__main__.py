"""`python -m dpkit.course`: seal an instructor's exercises, or write their solutions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dpkit.course import sealing
from dpkit.course.exercises import SEALED


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input ends in one sentence on standard error and exit code 2."""
    parser = argparse.ArgumentParser("python -m dpkit.course", description=__doc__)
    parser.add_argument("command", choices=("seal", "solutions"))
    parser.add_argument("source", type=Path, help="the instructor's exercises, a TOML file")
    parser.add_argument("--output", type=Path, help="the file to write (the usual place)")
    options = parser.parse_args(arguments)
    try:
        found = sealing.source(options.source)
        if options.command == "seal":
            path = options.output or SEALED
            sealing.seal(found, path)
        else:
            path = options.output or options.source.with_name("solutions.md")
            path.write_text(sealing.solutions(found), "utf-8")
    except (ValueError, OSError) as error:
        print(f"dpkit.course {options.command}: {error}", file=sys.stderr)
        return 2
    print(f"{len(found)} exercises, written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
