# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets the guest's IAA up as its job says: groups, engines, queues, the crypto driver's mode and verification; takes
queues away from the driver, and gives them back, while a command runs.

Through sysfs alone, as accel-config does (Documentation/ABI/stable/sysfs-driver-dma-idxd, and
Documentation/driver-api/crypto/iaa/iaa-crypto.rst).  It uses the standard library only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["main", "rebinding_command", "set_up_iaa"]

_BUS: Final = Path("/sys/bus/dsa")
_MESSAGES: Final = "/dev/kmsg"
#: Priority of every queue, as idxd's own defaults have it.
_PRIORITY: Final = 10


def set_up_iaa(job: dict[str, Any], bus: Path = _BUS) -> None:
    """Configure and enable all devices and their queues.

    The first ``engines`` of a device and all its queues are of group 0; a queue has ``size`` descriptors and is
    dedicated to the kernel.  The driver's settings come first: it takes them only while it has no queue.

    :param job: devices, wqs, engines, size, mode, verify
    :param bus: sysfs's directory of the bus
    :raises OSError: when the driver refuses something
    """
    found = sorted(path.name for path in (bus / "devices").glob("iax*"))
    if len(found) != job["devices"]:
        raise OSError(0, f"idxd found {len(found)} of {job['devices']} IAA devices{_kernel_says()}; choose a kernel "
                         "whose idxd takes them")
    driver = bus / "drivers/crypto"
    if not driver.is_dir():
        raise OSError(0, f"the crypto driver iaa_crypto is not there{_kernel_says()}; choose a kernel that has it")
    _write(driver / "verify_compress", job["verify"])
    _write(driver / "sync_mode", job["mode"])
    for name in found:
        _set_up_device(job, bus, name)


def rebinding_command(job: dict[str, Any], command: list[str]) -> list[str]:
    """Return a command that runs ``command``, and rebinds queues meanwhile where the job asks for it.

    :param job: as for :func:`set_up_iaa`, with ``rebind``: nanoseconds
    """
    if not job.get("rebind"):
        return command
    return [sys.executable, "-S", "-s", "-m", "traces.lab.guestiaa", str(job["rebind"] / 1e9), *command]


def main(words: list[str], bus: Path = _BUS) -> int:
    """Run a command; take each queue away from the driver in turn meanwhile, and give it back.

    A queue that the driver does not take back stays away: the probe on iaa_crypto_probe() records why.

    :param words: seconds between two changes, then the command
    :return: its exit status
    """
    every, driver = float(words[0]), bus / "drivers/crypto"
    queues = sorted(path.name for path in driver.glob("wq*.*"))
    places = {queue: bus / f"devices/iax{queue[2:].partition('.')[0]}" / queue for queue in queues}
    process = subprocess.Popen(words[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: process.send_signal(number))
    # itertools.product() would first take all that a cycle gives.
    for queue, what in ((queue, what) for queue in itertools.cycle(queues) for what in ("unbind", "bind")):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(every)
            break
        try:
            if what == "bind":
                # idxd forgets what a queue was set to when its driver goes (idxd_wq_disable_cleanup()).
                _set_up_queue(places[queue])
            _write(driver / what, queue)
        except OSError as problem:
            said = str(problem.strerror)
            print(f"{queue}: {said if what in said else f'{what}: {said}'}", flush=True)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _set_up_device(job: dict[str, Any], bus: Path, name: str) -> None:
    number = name.removeprefix("iax")
    place = bus / "devices" / name
    for engine in sorted(place.glob(f"engine{number}.*")):
        used = int(engine.name.rpartition(".")[2]) < job["engines"]
        _write(engine / "group_id", 0 if used else -1)
    queues = [place / f"wq{number}.{index}" for index in range(job["wqs"])]
    # idxd's defaults give the first queue all descriptors.
    _write(place / f"wq{number}.0/size", 0)
    for queue in queues:
        _write(queue / "group_id", 0)
        _write(queue / "size", job["size"])
        _set_up_queue(queue)
    _bind(bus, "idxd", place)
    for queue in queues:
        _bind(bus, "crypto", queue)


def _set_up_queue(queue: Path) -> None:
    """Make a queue that has no driver one of iaa_crypto's; its group and its size it keeps."""
    for setting, value in (("mode", "dedicated"), ("priority", _PRIORITY), ("type", "kernel"),
                           ("name", f"iaa_crypto{queue.name.rpartition('.')[2]}"), ("driver_name", "crypto")):
        _write(queue / setting, value)


def _bind(bus: Path, driver: str, place: Path) -> None:
    """Give a device or a queue its driver, which enables it."""
    try:
        _write(bus / "drivers" / driver / "bind", place.name)
        state = _read(place / "state")
    except OSError as problem:
        state = os.strerror(problem.errno) if problem.errno else str(problem)
    if state != "enabled":
        device = place if driver == "idxd" else place.parent
        raise OSError(0, f"{place.name} cannot be enabled ({state}, command status {_read(device / 'cmd_status')})"
                         f"{_kernel_says()}; check what --iaa asks for")


def _write(path: Path, value: object) -> None:
    try:
        # Never made anew: a setting that the kernel does not have is reported.
        handle = os.open(path, os.O_WRONLY)
    except OSError as problem:
        raise OSError(0, f"{path} cannot be set ({problem.strerror}); choose a kernel whose driver has it") from None
    try:
        os.write(handle, str(value).encode())
    except OSError as problem:
        if path.name == "bind":
            raise
        raise OSError(0, f"{path.parent.name}/{path.name} does not take '{value}' ({problem.strerror})"
                         f"{_kernel_says()}; check what --iaa asks for") from None
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def _kernel_says(messages: str = _MESSAGES) -> str:
    """Return the last thing that the kernel said of the devices, as the end of a sentence."""
    said = ""
    with contextlib.suppress(OSError):
        handle = os.open(messages, os.O_RDONLY | os.O_NONBLOCK)
        try:
            # A record a read; EAGAIN after the last.
            while record := os.read(handle, 8192):
                for line in record.decode("utf-8", "replace").splitlines():
                    text = line.partition(";")[2]
                    if re.search(r"idxd|\biax|iaa_crypto", text):
                        said = text
        except BlockingIOError:
            pass
        finally:
            os.close(handle)
    return f"; the kernel said: {said[:200]}" if said else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
