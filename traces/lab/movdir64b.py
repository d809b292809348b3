# SPDX-License-Identifier: GPL-2.0-or-later
"""MOVDIR64B, by which idxd hands a descriptor to its device, for a guest's processor that does not have it.

TCG raises #UD at the instruction.  A plugin of QEMU's plays it (``iaa/movdir64b.c``), compiled once with this box's gcc
and kept in the cache; where there is no compiler, a module in the guest does (``iaa/movdir64b_emu``), which ``zreplay
lab build`` makes.  Under KVM neither helps on a processor that has the instruction: there it does not trap, and KVM,
which has to carry it out on an emulated device's portal, does not know it (arch/x86/kvm/emulate.c of 7.3).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from traces.lab.emulator import Emulator, last_words
from traces.lab.errors import LabError

__all__ = ["MODULE", "check_plugin", "plugin"]

#: The guest's module that plays the instruction.
MODULE: Final = "movdir64b_emu"
_SOURCE: Final = Path(__file__).with_name("iaa") / "movdir64b.c"
#: Linked to nothing: its symbols are QEMU's and those of the libraries that QEMU brings along.
_FLAGS: Final = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-stack-protector",
                 "-U_FORTIFY_SOURCE", "-nostdlib")
_COMPILERS: Final = ("gcc", "cc")
#: Options of a QEMU that loads a plugin and has no machine.
_NO_MACHINE: Final = ("-M", "none", "-nodefaults", "-no-user-config", "-display", "none")

Say = Callable[[str], None]


def plugin(cache: Path, say: Say) -> Path | None:
    """Return the compiled plugin, compiled first where the cache does not have it; None where there is no compiler.

    Next to it stands its digest: one that was changed since is compiled again.

    :param say: called with a sentence on what is being done
    :raises LabError: when the compiler refuses it
    """
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join((source, *(flag.encode() for flag in _FLAGS)))).hexdigest()[:16]
    target = cache / "plugins" / f"movdir64b-{key}.so"
    noted = target.with_suffix(".sha256")
    try:
        if noted.read_text().strip() == hashlib.sha256(target.read_bytes()).hexdigest():
            return target
    except (OSError, ValueError):
        pass
    compiler = next((found for found in map(shutil.which, _COMPILERS) if found), None)
    if compiler is None:
        return None
    say("compiling the plugin for MOVDIR64B")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".movdir64b.") as scratch:
        made = Path(scratch, target.name)
        done = subprocess.run([compiler, *_FLAGS, "-o", str(made), str(_SOURCE)], text=True, errors="replace",
                              capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise LabError(f"{compiler} does not compile the plugin for MOVDIR64B ({_first(done.stderr)}); apt install "
                           "gcc libc6-dev")
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        made.replace(target)
        noted.write_text(digest + "\n")
    return target


def _first(text: str) -> str:
    """Return the line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no reason given")[:300]


def check_plugin(emulator: Emulator, path: Path) -> None:
    """See that a QEMU loads the plugin: its plugin API may be another one, or it was built without plugins.

    :raises LabError: when not
    """
    said = emulator.ask(*_NO_MACHINE, "-plugin", f"{str(path).replace(',', ',,')},check=on")
    if said.returncode or "plugin API" not in said.stdout:
        raise LabError(f"{emulator.describe()} does not take the plugin for MOVDIR64B ({last_words(said)}); take one "
                       "of 11.1, or leave out --qemu")
