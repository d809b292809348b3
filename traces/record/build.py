# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 traces/record/build.py [FILE]``: the recorder as one file that any Python from 3.9 runs."""

from __future__ import annotations

import sys
import tempfile
import zipapp
from pathlib import Path

__all__ = ["build"]

_PACKAGE = "zreplay_record"
_MAIN = f"""# SPDX-License-Identifier: GPL-2.0-or-later
import sys

from {_PACKAGE}.command import main

sys.exit(main())
"""


def build(target: Path) -> Path:
    """Write the single-file recorder to ``target`` and return it."""
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "app" / _PACKAGE
        package.mkdir(parents=True)
        for source in sorted(Path(__file__).resolve().parent.glob("*.py")):
            if source.stem not in ("__main__", "build"):
                (package / source.name).write_bytes(source.read_bytes())
        (package.parent / "__main__.py").write_text(_MAIN)
        zipapp.create_archive(package.parent, target, interpreter="/usr/bin/env python3", compressed=True)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "zreplay-record.pyz")))
