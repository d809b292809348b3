# SPDX-License-Identifier: GPL-2.0-or-later
"""Each measurement in a process of its own, so that memory and caches are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["RUNS", "child", "repeated"]

RUNS: Final = 5


def child(module: str, function: str, *arguments: str, one_core: bool = True) -> dict[str, Any]:
    """Run a module's function in a new process, on one core if asked, and return what it gives."""
    code = (f"import json,sys; from importlib import import_module; "
            f"print(json.dumps(getattr(import_module({module!r}), {function!r})(*sys.argv[1:])))")
    environment = {**os.environ, "OMP_NUM_THREADS": "1" if one_core else str(os.cpu_count() or 1)}

    def pin() -> None:
        if one_core:
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})

    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, preexec_fn=pin, check=True,
                          stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def repeated(once: Callable[[], None], runs: int = RUNS) -> None:
    """Run a round of measurements ``runs`` times: one kind after the other, so that other load meets all kinds."""
    for _ in range(runs):
        once()
