# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA of a guest on the host's side: its server, its sockets, QEMU's options, what is kept of it.

One server serves all devices of a guest.  It is started before QEMU and ends when QEMU does; nothing of it is left
behind: its sockets are in a directory of their own, which is removed with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from traces.importers.iaafiles import FACTS, JOBS, PAGES
from traces.lab.emulator import DEVICE, Emulator
from traces.lab.errors import GuestDied, LabError
from traces.lab.iaa.options import IaaOptions
from traces.lab.movdir64b import MODULE
from traces.lab.qemu import Attachment, tail
from traces.leftovers import scratch, sweep

__all__ = ["GuestIaa", "RunningIaa", "running"]

#: The server's command, without its options.
_SERVER: Final = (sys.executable, "-m", "traces.lab.iaa.server")
#: What it says when its sockets are there.
_READY: Final = "listening"
#: Seconds that it may take until then: at the first start it compiles its coder, half a minute on an idle machine; and
#: seconds after which that is said.
_PATIENCE: Final = 900.0
_QUIET: Final = 5.0
#: Seconds that it may take to end after QEMU did, and seconds of a guest without it before the guest counts as dead.
_AFTERWARDS: Final = 10.0
_ALONE: Final = 2.0
#: Bytes of a socket's name (unix(7)).
_LONGEST: Final = 107
#: TCG filters what it does not know out of a model's features, and idxd does not load without MOVDIR64B.
_CPU: Final = ",+movdir64b,x-force-features=on"
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class GuestIaa:
    """The IAA of a guest: its options, a QEMU that can have it, who plays MOVDIR64B, the plan of its faults.

    ``plugin`` is None where a module in the guest does; ``faults`` is the text of the plan, "" for none; with
    ``contents`` the job log has checksums and first bytes of what the devices make, as where pages are recorded whole.
    """

    options: IaaOptions
    emulator: Emulator
    plugin: Path | None
    faults: str = ""
    contents: bool = False

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that the guest loads for it, in order."""
        return (*(() if self.plugin is not None else (MODULE,)), "idxd_bus", "idxd", "iaa_crypto")

    def job(self) -> dict[str, Any]:
        """Return what the guest is to set its driver to (:mod:`traces.lab.guestiaa`)."""
        return {"devices": self.options.devices, "wqs": self.options.wqs, "engines": self.options.engines,
                "size": self.options.queue_size, "mode": self.options.mode, "verify": self.options.verify,
                "rebind": self.options.rebind}


@dataclass
class RunningIaa:
    """A server that listens."""

    iaa: GuestIaa
    place: Path
    attached: Attachment
    _process: subprocess.Popen[bytes]
    _gone: float | None = None

    def check(self, console: Path) -> None:
        """See that the server still runs: without it the guest would wait for ever.

        A server ends with its guest, so it may be gone a moment earlier.

        :param console: the guest's
        :raises GuestDied: when it ended by itself
        """
        if self._process.poll() is None:
            return
        now = time.monotonic()
        self._gone = self._gone if self._gone is not None else now
        if self._process.returncode or now - self._gone > _ALONE:
            raise GuestDied(f"the server of the emulated IAA ended with status {self._process.returncode} "
                            f"({_last_line(self.place)}); the guest was stopped", tail(console))

    def end(self) -> None:
        """Wait until the server has ended after its guest, and end it where it does not."""
        try:
            self._process.wait(_AFTERWARDS if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server: it gets time to write its log's last lines."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_ALONE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def keep(self, capture: Path) -> None:
        """Put the job log and the facts of the devices into a capture.

        :raises OSError: when the host has no room
        """
        log = self.place / JOBS
        data = log.read_bytes() if log.is_file() else b""
        (capture / JOBS).write_bytes(data)
        faults = self.iaa.faults
        pages = self.place / PAGES
        if pages.is_file():
            shutil.copyfile(pages, capture / PAGES)
        facts = {"zreplay_iaa": 1, "options": asdict(self.iaa.options), "faults": faults,
                 "faults_sha256": hashlib.sha256(faults.encode()).hexdigest() if faults else None,
                 "jobs": {"file": JOBS, "bytes": len(data), "lines": data.count(b"\n"),
                          "sha256": hashlib.sha256(data).hexdigest()},
                 **({"pages": {"file": PAGES, "sha256": _digest(pages)}} if pages.is_file() else {}),
                 "movdir64b": "plugin" if self.iaa.plugin is not None else "module",
                 "qemu": self.iaa.emulator.describe(), "qemu_packages": self.iaa.emulator.packages,
                 "server_status": self._process.returncode}
        (capture / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(place: Path) -> str:
    """Return the last line that a server complained with."""
    lines = (place / "errors").read_text(errors="replace").strip().splitlines()
    return lines[-1][:300].rstrip(".") if lines else "it gave no reason"


@contextmanager
def running(iaa: GuestIaa, say: Callable[[str], object] = lambda text: None) -> Iterator[RunningIaa]:
    """Start the server of a guest's devices; it is ended with the block, and its sockets are removed.

    :param say: called with a sentence where starting takes long

    :raises LabError: when it does not start: one sentence
    """
    temporary = Path(tempfile.gettempdir())
    sweep(temporary)
    with scratch(temporary / "zreplay-iaa") as place:
        sockets = [place / f"iaa{number}.sock" for number in range(iaa.options.devices)]
        portal = place / "portal.sock" if iaa.plugin is not None else None
        if len(os.fsencode(sockets[-1])) > _LONGEST - 3:
            raise LabError(f"{temporary} has too long a name for a socket's address; set TMPDIR to a shorter one")
        command = ["nice", *_SERVER, *(word for path in sockets for word in ("--socket", str(path))),
                   *(("--portal", str(portal)) if portal is not None else ()),
                   "--options", iaa.options.text(), "--log", str(place / JOBS)]
        if iaa.contents:
            command += ["--contents", "--pages", str(place / PAGES)]
        if iaa.faults:
            (place / "faults").write_text(iaa.faults)
            command += ["--faults", str(place / "faults")]
        with (place / "output").open("wb") as output, (place / "errors").open("wb") as errors:
            paths = os.environ.get("PYTHONPATH")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=place,
                                       env={**os.environ, "PYTHONPATH": f"{_ROOT}{os.pathsep}{paths}" if paths
                                            else str(_ROOT)})
        server = RunningIaa(iaa, place, _attachment(iaa, sockets, portal), process)
        try:
            _await(process, place, say)
            yield server
        finally:
            server.kill()


def _await(process: subprocess.Popen[bytes], place: Path, say: Callable[[str], object]) -> None:
    """Wait until a server listens.

    :raises LabError: when it ends before, or takes too long
    """
    began, said = time.monotonic(), False
    while _READY not in (place / "output").read_text(errors="replace").splitlines():
        if process.poll() is not None:
            raise LabError(f"the server of the emulated IAA did not start ({_last_line(place)}); run the command "
                           "again, or report it with what it said")
        waited = time.monotonic() - began
        if waited > _QUIET and not said:
            said = True
            say("the emulated IAA compiles its coder for this machine, once (about 30 s)")
        if waited > _PATIENCE:
            raise LabError(f"the server of the emulated IAA was not ready after {_PATIENCE:.0f} s; try again when the "
                           "box is less busy")
        time.sleep(0.05)


def _attachment(iaa: GuestIaa, sockets: list[Path], portal: Path | None) -> Attachment:
    words: list[str] = []
    for path in sockets:
        words += ["-device", json.dumps({"driver": DEVICE, "socket": {"type": "unix", "path": str(path)}})]
    if portal is not None:
        plugin, socket = (str(path).replace(",", ",,") for path in (iaa.plugin, portal))
        words += ["-plugin", f"{plugin},socket={socket}"]
    return Attachment(iaa.emulator.words, _CPU, tuple(words))
