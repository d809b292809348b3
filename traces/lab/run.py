# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of the lab: a kernel and a workload in, a recording out."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from traces.importers import import_source
from traces.lab.apt import cache_directory
from traces.lab.channel import Receiver
from traces.lab.devices import GuestIaa, running
from traces.lab.errors import GuestDied, LabError
from traces.lab.guestcommon import FAILED
from traces.lab.initramfs import WORK, build, content_archive, files_archive, job_archive
from traces.lab.kernels import BootKernel
from traces.lab.qemu import Machine, boot, ending_on_signals, kvm_is_there, tail
from traces.lab.roots import Root
from traces.lab.tools import Tools
from traces.leftovers import scratch

__all__ = ["SWAP_SIZE", "Foreign", "GuestJob", "GuestRun", "Ran", "run", "run_task"]

#: Sizes of the guest's disks in bytes; their images take what is written to them.
SWAP_SIZE: Final = 4 << 30
_RESULT_SIZE: Final = 16 << 30
#: Bytes of memory that a guest needs in addition to twice its archives while it unpacks them.
_BESIDE: Final = 256 << 20
#: Seconds within which a machine under KVM must have said something.
_KVM_PATIENCE: Final = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Foreign:
    """A user's command, in a root of its own.

    ``files`` are (path here, path there); ``cgroup`` is what its cgroup's files are given before the recording, name ->
    value; ``seconds`` is the time that it may take; with ``systemd`` that is the guest's process 1, in the same root.
    """

    command: tuple[str, ...]
    root: Root
    files: tuple[tuple[Path, str], ...] = ()
    cgroup: dict[str, str] = field(default_factory=dict)
    seconds: float = 600.0
    systemd: bool = False

    def options(self) -> dict[str, Any]:
        """Return the guest's description of it."""
        return {"command": list(self.command), "cgroup": self.cgroup, "seconds": self.seconds, "systemd": self.systemd,
                "directory": WORK}


@dataclass(frozen=True)
class GuestJob:
    """What a guest is to do.

    ``memory`` is in MiB, ``timeout`` in seconds; ``accel`` is ``auto``, ``kvm`` or ``tcg``; ``workload`` and
    ``record`` are arguments of those commands; ``params`` are parameters of zswap at the start; ``content`` is a file
    or directory that the guest finds at :data:`traces.lab.initramfs.GUEST_CONTENT`; ``script`` is the text of a
    sequence that it finds at :data:`traces.lab.initramfs.GUEST_SCRIPT`; ``tools`` go along where BCC or
    trace-cmd is asked for, and all of the guest's work then runs under their Python; with ``icount`` a guest of TCG
    counts its instructions for time; ``chain_size`` stands in for the kernel's configuration; ``modules`` are
    loaded after the lab's own, each a name with its parameters: ``fake_iaa fail_nth=3``; ``nodes`` are its NUMA
    nodes; ``swap`` is the size of its swap in bytes; ``foreign`` is a command of the user's own that runs in place of
    the workload; ``iaa`` are emulated devices, with which the guest runs under TCG.
    """

    kernel: BootKernel
    compressor: str
    workload: tuple[str, ...]
    record: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    memory: int = 768
    cpus: int = 1
    timeout: float = 900.0
    accel: str = "auto"
    content: Path | None = None
    tools: Tools | None = None
    icount: bool = False
    script: str = ""
    chain_size: int | None = None
    modules: tuple[str, ...] = ()
    nodes: int = 1
    swap: int = SWAP_SIZE
    foreign: Foreign | None = None
    iaa: GuestIaa | None = None


@dataclass(frozen=True)
class Ran:
    """What a guest left: the directory it sent, its last report, seconds by part, the accelerator."""

    capture: Path
    result: dict[str, Any]
    seconds: dict[str, float]
    accel: str


@dataclass(frozen=True)
class GuestRun:
    """The result of a run: the importer's summary, seconds by part, how the workload ended; of a user's command the
    guest's report (:mod:`traces.lab.guestcommand`) and the command's output.
    """

    summary: dict[str, Any]
    seconds: dict[str, float]
    accel: str
    workload_status: int
    console: str
    command: dict[str, Any] | None = None


def run(job: GuestJob, out: Path, say: Say = lambda text: None) -> GuestRun:
    """Boot, record, import.

    Files that reached the host from a failed run stay in ``OUT.partial``.

    :param out: the recording to make
    :param say: called with a sentence on what is being done
    :raises LabError: when it cannot begin
    :raises GuestDied: when the guest did not finish
    :raises BadInput: when its capture cannot be imported
    """
    if os.path.lexists(out):
        raise LabError(f"{out} exists already; remove it or choose another name")
    task, options = ("record", {}) if job.foreign is None else ("foreign", job.foreign.options())
    with run_task(job, task, options, out, say) as ran:
        began = time.monotonic()
        say("importing")
        kernel = job.kernel
        # A path may name a user's directories; it does not say what was booted.
        origin = kernel.origin if kernel.origin != str(kernel.image) else kernel.image.name
        summary = import_source(ran.capture, out, overrides={"chain_size": job.chain_size, "origin": origin,
                                                             "build": kernel.built})
        # Only now: importing it loads a compiler.
        from traces.importers.capture import read_command

        ran.seconds["import"] = time.monotonic() - began
        return GuestRun(summary, ran.seconds, ran.accel, _workload_status(ran.capture),
                        tail(ran.capture.parent / "console.txt"), read_command(ran.capture))


@contextmanager
def run_task(job: GuestJob, task: str, options: dict[str, Any], out: Path, say: Say) -> Iterator[Ran]:
    """Boot a guest, have it do one of :data:`traces.lab.guesttasks.TASKS`, and yield what it left.

    The files are in ``OUT.partial``, which is removed when the block ends well and stays otherwise.

    :param options: keys that the task's job has in addition to the workload
    :raises LabError: when it cannot begin
    :raises GuestDied: when the guest did not finish
    """
    partial = out.with_name(out.name + ".partial")
    if os.path.lexists(partial):
        raise LabError(f"{partial} exists already; remove it or choose another name")
    seconds: dict[str, float] = {}
    began = time.monotonic()
    say("building the initramfs")
    parts: list[bytes | Path] = [build(job.kernel, job.modules, job.iaa.modules if job.iaa is not None else ())]
    if job.tools is not None:
        parts.append(job.tools.archive)
    if job.content is not None:
        parts.append(content_archive(job.content, job.memory << 18))
    if job.foreign is not None:
        parts += _root_parts(job, job.foreign)
    parts.append(job_archive({"task": task, "compressor": job.compressor, "params": job.params,
                              "workload": list(job.workload), "record": list(job.record),
                              "iaa": job.iaa.job() if job.iaa is not None else None, **options},
                             job.script))
    seconds["initramfs"] = time.monotonic() - began
    try:
        partial.mkdir(mode=0o700, parents=True)
    except OSError as problem:
        raise LabError(f"{partial} cannot be made ({problem.strerror}); choose another place with -o") from None
    try:
        # Next to the recording: the guest may send a lot, and /tmp may be memory.
        with scratch(out) as place:
            accel, result = _boot(job, place, parts, partial, seconds, say)
        if result.get("problem"):
            raise GuestDied(f"the guest could not do its work: {result['problem']}", tail(partial / "console.txt"))
        if result.get("status"):
            raise GuestDied(f"the recorder in the guest ended with status {result['status']}",
                            tail(partial / "console.txt"))
        capture = partial / "capture"
        if job.kernel.config is not None:
            # As a recorder leaves it that finds none on its box.
            for place in [path.parent for path in capture.rglob("capture.json")]:
                if not (place / "kernel.config").exists():
                    shutil.copyfile(job.kernel.config, place / "kernel.config")
        yield Ran(capture, result, seconds, accel)
    except GuestDied as death:
        raise GuestDied(death.what, death.console, _kept(partial)) from None
    except OSError as problem:
        raise GuestDied(f"the host could not take what the guest sent ({problem})", tail(partial / "console.txt"),
                        _kept(partial)) from None
    except (LabError, KeyboardInterrupt):
        shutil.rmtree(partial)
        raise
    # A capture that cannot be imported is kept, so that the user can see why.
    shutil.rmtree(partial)


def _root_parts(job: GuestJob, foreign: Foreign) -> list[bytes | Path]:
    """Return the archives of a command's root.

    :raises LabError: when they do not fit the guest's memory
    """
    files = files_archive(foreign.files, foreign.root.archive)
    size = foreign.root.size + len(files)
    if 2 * size + _BESIDE > job.memory << 20:
        raise LabError(f"the packages and files have {size >> 20} MiB, which the guest holds in memory, twice while it "
                       f"unpacks them; give it --memory {(2 * size + 2 * _BESIDE) >> 20}M")
    return [foreign.root.archive, files]


def _workload_status(capture: Path) -> int:
    """Return the status that the recorder saw its command end with; 0 where it says nothing."""
    try:
        return int(json.loads((capture / "capture.json").read_text()).get("command_status") or 0)
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def _kept(partial: Path) -> str:
    capture = partial / "capture"
    files = [path for path in capture.rglob("*") if path.is_file()] if capture.is_dir() else []
    if not files:
        return f"see its console in {partial}"
    size = sum(path.stat().st_size for path in files)
    return (f"what reached the host is in {partial}: the console and {len(files)} files of the capture ({size:,} "
            f"bytes); import it with 'zreplay import {capture} -o REC'")


def _boot(job: GuestJob, scratch: Path, parts: list[bytes | Path], partial: Path, seconds: dict[str, float],
          say: Say) -> tuple[str, dict[str, Any]]:
    """Boot the job, under TCG where KVM cannot run it; returns the accelerator and the guest's last report.

    :raises GuestDied: when the guest did not finish
    """
    with (scratch / "initramfs").open("wb") as initramfs:
        for part in parts:
            if isinstance(part, Path):
                with part.open("rb") as archive:
                    shutil.copyfileobj(archive, initramfs)
            else:
                initramfs.write(part)
    console = partial / "console.txt"
    accels = ["kvm"] if job.accel == "kvm" else ["tcg"]
    if job.accel == "auto" and job.iaa is None and kvm_is_there() and not _kvm_failed():
        accels = ["kvm", "tcg"]
    for accel in accels:
        receiver = _disks(scratch, partial, job.swap)
        machine = Machine(job.kernel.image, scratch / "initramfs", scratch / "swap", scratch / "result", job.memory,
                          job.cpus, accel, job.icount, job.nodes)
        heard: list[str] = []

        def listen(text: str, heard: list[str] = heard) -> None:
            heard.append(text)
            say(f"guest: {text}")

        began = time.monotonic()
        say(f"booting {job.kernel.release} ({accel})")
        last_try = accel == accels[-1]
        try:
            _run_machine(job, machine, console, listen, receiver, partial / "capture",
                         None if last_try else _KVM_PATIENCE)
        except GuestDied:
            receiver.receive()
            if last_try or heard:
                raise
            _kvm_failed(say_so=True)
            continue
        finally:
            seconds["guest"] = time.monotonic() - began
        receiver.receive()
        if receiver.result is None:
            if not last_try and not heard:
                _kvm_failed(say_so=True)
                continue
            # A guest without its result disk can only say so.
            failures = [text.removeprefix(FAILED) for text in heard if text.startswith(FAILED)]
            raise GuestDied(f"the guest could not do its work: {failures[-1]}" if failures else
                            "the guest powered off without sending all of its capture", tail(console))
        return accel, receiver.result
    raise AssertionError("the last accelerator decides")


def _run_machine(job: GuestJob, machine: Machine, console: Path, listen: Say, receiver: Receiver,
                 capture: Path, patience: float | None) -> None:
    """Run a machine to its end, with the devices of its job; what these leave goes into the capture.

    :raises GuestDied: when it did not finish
    """
    if job.iaa is None:
        boot(machine, console, job.timeout, listen, receiver.receive, patience)
        return
    # Checksums of pages say what was in them: they are kept where the pages are.
    iaa = dataclasses.replace(job.iaa, contents="full" in job.record)
    with ending_on_signals(), running(iaa, listen) as devices:

        def meanwhile() -> None:
            receiver.receive()
            devices.check(console)

        try:
            with_devices = dataclasses.replace(machine, attached=devices.attached)
            boot(with_devices, console, job.timeout, listen, meanwhile, patience)
            devices.end()
        finally:
            devices.kill()
            devices.keep(capture)


def _disks(scratch: Path, partial: Path, swap: int) -> Receiver:
    """Make the guest's disks anew, empty, and return the receiver of the second."""
    for name, size in (("swap", swap), ("result", _RESULT_SIZE)):
        with (scratch / name).open("wb") as image:
            image.truncate(size)
    capture = partial / "capture"
    shutil.rmtree(capture, ignore_errors=True)
    capture.mkdir(mode=0o700)
    return Receiver(scratch / "result", capture)


def _kvm_failed(say_so: bool = False) -> bool:
    """Return, or remember until the next boot of this machine, that its /dev/kvm cannot run a guest."""
    note = cache_directory() / "no-kvm"
    try:
        this_boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        if say_so:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(this_boot)
        return note.read_text() == this_boot
    except OSError:
        return False
