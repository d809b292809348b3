# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 traces/record/build.py [FILE]``: the recorder as one file that any Python from 3.9 runs."""

from __future__ import annotations

import sys
import tempfile
import zipapp
from pathlib import Path

__all__ = ["build"]

_PACKAGE = "traces/record"
#: What the recorder shares with the rest.
_SHARED = ("events.py",)
_MAIN = f"""# SPDX-License-Identifier: GPL-2.0-or-later
import sys

from {_PACKAGE.replace("/", ".")}.command import main

sys.exit(main())
"""


def build(target: Path) -> Path:
    """Write the single-file recorder to ``target`` and return it."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "app" / _PACKAGE
        package.mkdir(parents=True)
        here = Path(__file__).resolve().parent
        for source in sorted(here.glob("*.py")):
            if source.stem not in ("__main__", "build"):
                (package / source.name).write_bytes(source.read_bytes())
        (package.parent / "__init__.py").touch()
        for name in _SHARED:
            (package.parent / name).write_bytes((here.parent / name).read_bytes())
        (Path(scratch) / "app" / "__main__.py").write_text(_MAIN)
        zipapp.create_archive(Path(scratch) / "app", target, interpreter="/usr/bin/env python3", compressed=True)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "zreplay-record.pyz")))
