# SPDX-License-Identifier: GPL-2.0-or-later
"""What every task in the guest uses: its messages to the host, paths, and zswap's set-up.

It uses the standard library only.  Lines that begin with :data:`SAYS` on the console are for the host.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from traces.lab.channel import Sender
from traces.lab.guestiaa import set_up_iaa

__all__ = ["CAPTURE", "CGROUP", "FAILED", "RESULT", "SAYS", "SWAP", "await_disks", "reset", "run_and_send", "say",
           "set_up"]

SAYS: Final = "zreplay-lab: "
#: Begins a message of a guest that cannot do its work.
FAILED: Final = "failed: "
#: Cgroup of the workload: made before the recording, and still there after it.
CGROUP: Final = "/sys/fs/cgroup/rec"
#: What is sent to the host, while it grows.
CAPTURE: Final = Path("/out/capture")
SWAP: Final = "/dev/vda"
RESULT: Final = Path("/dev/vdb")
_PARAMETERS: Final = "/sys/module/zswap/parameters"
#: Seconds that a kernel may take to find its disks.
_DISKS_WITHIN: Final = 5.0
#: Seconds between two looks for what there is to send.
_SEND_EVERY: Final = 1.0


def say(text: str) -> None:
    """Report to the host."""
    print(SAYS + text, flush=True)


def _write(name: str, value: str) -> None:
    Path(name).write_text(value)


def await_disks(*disks: str | Path) -> None:
    """Wait for the disks: their driver may still be looking at them.

    :raises OSError: when one does not come
    """
    deadline = time.monotonic() + _DISKS_WITHIN
    for disk in disks:
        while not os.path.exists(disk):
            if time.monotonic() > deadline:
                raise OSError(0, f"there is no disk {disk}: this kernel has virtio_blk and virtio_pci neither built "
                                 "in nor among its modules; name its modules with --modules")
            time.sleep(0.05)


def set_up(job: dict[str, Any]) -> None:
    """Set zswap up before anything is recorded, so that its first pool and its parameters are the start state.

    :raises OSError: when the kernel refuses something
    """
    _write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    os.makedirs(CGROUP, exist_ok=True)
    # A virtio disk looks rotational: up to 6.12 the kernel then splits every large folio before it swaps it out.
    _write(f"/sys/block/{Path(SWAP).name}/queue/rotational", "0")
    if not os.path.isdir(_PARAMETERS):
        raise OSError(0, "this kernel has no zswap; take one with CONFIG_ZSWAP=y")
    if job.get("iaa"):
        say("setting up IAA")
        set_up_iaa(job["iaa"])
    # The compressor first: the pool is made when zswap is enabled.
    reset(job)
    # While zswap is off it accepts an unknown name, and later makes its first pool with another compressor.
    compressor = Path(f"{_PARAMETERS}/compressor").read_text().strip()
    if compressor != job["compressor"]:
        raise OSError(0, f"this kernel has no compressor '{job['compressor']}' and zswap took '{compressor}'; name "
                         "another with --compressor")
    subprocess.run(["mkswap", SWAP], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", SWAP], check=True)


def reset(job: dict[str, Any]) -> None:
    """Give zswap's parameters the job's values.

    :raises OSError: when the kernel refuses one
    """
    for name, value in {"compressor": job["compressor"], **job["params"], "enabled": "Y"}.items():
        try:
            _write(f"{_PARAMETERS}/{name}", value)
        except OSError as problem:
            raise OSError(0, f"zswap parameter {name} does not take '{value}' ({problem.strerror}); give it "
                             "another with --param") from None


def run_and_send(command: list[str], sender: Sender) -> int:
    """Run a command, sending what it writes as it goes; returns its exit status."""
    process = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, cwd="/out")
    while process.poll() is None:
        time.sleep(_SEND_EVERY)
        with contextlib.suppress(FileNotFoundError):  # a file was renamed while it was looked at
            sender.send_new()
    return process.returncode
