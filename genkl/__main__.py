"""``python -m genkl``: the command line of `genkl.cli`."""

from __future__ import annotations

import sys

from genkl.cli import main

if __name__ == "__main__":
    sys.exit(main())
