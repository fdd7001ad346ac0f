"""Binder badges for a public copy, one a lesson: `python binder/badges.py OWNER/REPOSITORY`.

Prints the rows; with --write it puts them into the README. Elsewhere than GitHub: --host gl.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- badges -->\n).*?(<!-- end of badges -->)", re.S)
BADGE = "https://mybinder.org/badge_logo.svg"


def badges(repository: str, host: str = "gh", ref: str = "HEAD") -> str:
    """A Markdown table of lessons and their badges, the table of contents first."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"The repository must look like OWNER/NAME, got {repository!r}.")
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    notebooks.sort(key=lambda path: path.stem != "index")
    rows = ["| lesson | in a Binder tab |", "|---|---|"]
    for path in notebooks:
        place = quote(f"notebooks/{path.name}", safe="")
        address = f"https://mybinder.org/v2/{host}/{repository}/{ref}?labpath={place}"
        rows.append(f"| `{path.stem}` | [![Binder]({BADGE})]({address}) |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Print the table, or write it between the README's marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", help="OWNER/NAME of the public copy")
    parser.add_argument("--host", default="gh", help="Binder's short name of the host (gh)")
    parser.add_argument("--ref", default="HEAD", help="branch, tag or commit (HEAD)")
    parser.add_argument("--write", action="store_true", help="write them into README.md")
    options = parser.parse_args()
    table = badges(options.repository, options.host, options.ref)
    if not options.write:
        print(table, end="")
        return
    readme = ROOT / "README.md"
    text, found = BLOCK.subn(lambda at: at[1] + table + at[2], readme.read_text(encoding="utf-8"))
    if found != 1:
        raise SystemExit("README.md has no block between <!-- badges --> and its end.")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
