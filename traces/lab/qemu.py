# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot in QEMU: its command line, its console, its end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from traces.lab.errors import GuestDied, LabError
from traces.lab.guestcommon import SAYS

__all__ = ["Attachment", "Machine", "boot", "ending_on_signals", "kvm_is_there", "memory_mib", "tail"]

_QEMU: Final = "qemu-system-x86_64"
_TAIL_LINES: Final = 25
#: What the console says when the machine will not continue, or KVM cannot run it.
_PANIC: Final = re.compile(r"Kernel panic - not syncing|BUG: unable to handle|KVM internal error|failed to set MSR"
                           r"|Could not access KVM|failed to initialize kvm")
#: Seconds after a panic in which the guest may still end by itself.
_AFTER_PANIC: Final = 5.0
#: A ramfs as root: what is in a tmpfs may be swapped out, and that would be recorded.  no_timer_check: on a busy host
#: TCG's timer may come too late for the check, and the kernel panics over it.
_APPEND: Final = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr rootfstype=ramfs no_timer_check"


@dataclass(frozen=True)
class Attachment:
    """What a machine has of devices that the lab emulates in other processes, which share its memory.

    ``front`` begins the command of a QEMU that knows them, ``cpu`` is added to the model of the CPU, ``words`` are the
    devices.
    """

    front: tuple[str, ...]
    cpu: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """A virtual machine: ``memory`` in MiB, ``accel`` is ``kvm`` or ``tcg``.

    With ``icount`` (TCG only) its time is what its instructions take, 2 ns each, whatever else the host is doing.
    ``nodes`` NUMA nodes share memory and CPUs evenly; where there are fewer CPUs, some have none.
    """

    image: Path
    initramfs: Path
    swap: Path
    result: Path
    memory: int
    cpus: int
    accel: str
    icount: bool = False
    nodes: int = 1
    attached: Attachment | None = None

    def command(self) -> list[str]:
        """Return the command that runs it.

        :raises LabError: when QEMU is missing
        """
        front: tuple[str, ...]
        if self.attached is not None:
            front = self.attached.front
        else:
            qemu = shutil.which(_QEMU)
            if qemu is None:
                raise LabError("QEMU is missing; apt install qemu-system-x86 busybox-static")
            front = (qemu,)
        accel, cpu = self.accel, "host"
        if accel == "tcg":
            # 5-level paging moves the direct map away from where pages are looked for.
            cpu = "max,la57=off"
            if self.cpus > 1 or self.icount:
                # With a thread per CPU kernels now and then fail over their own patched code.
                accel = "tcg,thread=single"
        else:
            cpu = "host,la57=off"
        if self.attached is not None:
            cpu += self.attached.cpu
        drives = []
        for path in (self.swap, self.result):
            # A full disk of the host is reported to the guest; the default would stop the machine for good.
            drives += ["-drive", f"file={_escaped(path)},format=raw,if=virtio,cache=unsafe,werror=report"]
        return ["nice", *front, "-accel", accel, "-cpu", cpu, *self._memory(), "-smp", str(self.cpus),
                *(self._nodes() if self.nodes > 1 else ()),
                *(["-icount", "shift=1,sleep=off"] if self.icount and self.accel == "tcg" else []),
                "-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio", "-kernel", str(self.image),
                "-initrd", str(self.initramfs), "-append", _APPEND, *drives,
                *(self.attached.words if self.attached is not None else ())]

    def _memory(self) -> list[str]:
        """Return the board with its memory: a process that emulates a device maps it too."""
        if self.attached is None or self.nodes > 1:
            return ["-M", "q35", "-m", str(self.memory)]
        return ["-M", "q35,memory-backend=ram", "-m", str(self.memory),
                "-object", f"memory-backend-memfd,id=ram,size={self.memory}M,share=on"]

    def _nodes(self) -> list[str]:
        words = []
        kind, shared = ("ram", "") if self.attached is None else ("memfd", ",share=on")
        for node in range(self.nodes):
            # The remainder goes to the first node.
            size = self.memory // self.nodes + (self.memory % self.nodes if not node else 0)
            cpus = "".join(f",cpus={cpu}" for cpu in range(node, self.cpus, self.nodes))
            words += ["-object", f"memory-backend-{kind},id=node{node},size={size}M{shared}",
                      "-numa", f"node,nodeid={node},memdev=node{node}{cpus}"]
        return words


def _escaped(path: Path) -> str:
    # In an option's value a comma ends it.
    return str(path).replace(",", ",,")


def kvm_is_there() -> bool:
    """True when /dev/kvm may be opened; whether it can run a guest is only known by trying."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError:
        return False
    return True


def memory_mib(text: str) -> int:
    """Return a size such as ``768``, ``768M`` or ``2G`` in MiB.

    :raises ValueError: when it is not a size
    """
    match = re.fullmatch(r"([1-9][0-9]{0,6})([MG]?)", text, re.I)
    if match is None:
        raise ValueError(f"'{text}' is not a size such as 768M or 2G")
    return int(match[1]) << (10 if match[2].upper() == "G" else 0)


def tail(console: Path) -> str:
    """Return the last lines of a console, without what a terminal would obey."""
    try:
        text = console.read_text(errors="replace")
    except OSError:
        return ""
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[^\n\t -~]", "", text).splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def boot(machine: Machine, console: Path, timeout: float, say: Callable[[str], None],
         meanwhile: Callable[[], None], patience: float | None = None) -> None:
    """Run a machine until it powers off.

    :param console: file for the console's output
    :param timeout: seconds that it may take
    :param say: called with what the guest says it does
    :param meanwhile: called now and then
    :param patience: seconds within which the guest must have said something; None waits for it to the end
    :raises GuestDied: when it panicked or took too long
    :raises LabError: when QEMU is missing or does not start
    """
    command = machine.command()
    with ending_on_signals(), console.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            panicked = _watch(process, console, timeout, say, meanwhile, patience)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if panicked:
        raise GuestDied("the guest panicked", tail(console))
    if process.returncode:
        raise GuestDied(f"QEMU ended with status {process.returncode}", tail(console))


def _watch(process: subprocess.Popen[bytes], console: Path, timeout: float, say: Callable[[str], None],
           meanwhile: Callable[[], None], patience: float | None) -> bool:
    """Follow a machine's console to its end, or to some seconds after a panic; true when it panicked."""
    began = time.monotonic()
    died_at: float | None = None
    heard = False
    rest = ""
    with console.open(errors="replace") as lines:
        while True:
            ended = process.poll() is not None
            rest += lines.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                at = line.find(SAYS)
                if at >= 0:
                    heard = True
                    say(line[at + len(SAYS):].strip())
                if _PANIC.search(line) and died_at is None:
                    died_at = time.monotonic()
            meanwhile()
            now = time.monotonic()
            if ended or (died_at is not None and now - died_at > _AFTER_PANIC):
                return died_at is not None
            if now - began > timeout:
                raise GuestDied(f"the guest was not done after {timeout:.0f} s and was stopped", tail(console))
            if patience is not None and not heard and now - began > patience:
                raise GuestDied(f"the guest said nothing for {patience:.0f} s and was stopped", tail(console))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this process as Ctrl-C does: a machine must not outlive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
