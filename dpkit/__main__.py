"""Run `python -m dpkit` as the command `dpkit`."""

import sys

from dpkit.cli import main

sys.exit(main())
