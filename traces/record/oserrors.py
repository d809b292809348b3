# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operating system's error means for the user: what happened, and what can be done about it."""

from __future__ import annotations

import errno
import os

__all__ = ["OF_DISKS", "kernel_step", "next_step", "what_happened"]

#: Errors of the disk, or the file system, that files go to.
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_ROOM = "make room there, or choose another place"
_FILES = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM,
          errno.EFBIG: "allow larger files (ulimit -f), or choose another place",
          errno.EACCES: "choose a place that you may use, or run it as a user with access",
          errno.EPERM: "choose a place that you may use, or run it as a user with access",
          errno.EROFS: "choose a place that can be written to",
          errno.EMFILE: "allow more open files (ulimit -n)",
          errno.ENFILE: "allow more open files (sysctl fs.file-max)",
          errno.ENOMEM: "give it more memory, or run fewer things at the same time",
          errno.EAGAIN: "allow more processes (ulimit -u), or run fewer things at the same time",
          errno.ENOENT: "see whether it is where it was, and try again",
          errno.EIO: "see in the kernel's log what is wrong with the disk"}
#: Errors that another name does not mend.
_NOT_OF_NAMES = (*OF_DISKS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_GONE = "see whether tracefs is still mounted and which processes use it, and try again"
#: The same numbers from tracefs, which has no disk and no other place to choose.
_KERNEL = {errno.ENODEV: _GONE, errno.ENOENT: _GONE,
           errno.EBUSY: "end the other processes that use it, and try again",
           errno.EPERM: "see whether the kernel is locked down (/sys/kernel/security/lockdown)",
           errno.EACCES: "run it as root, and see whether a security module forbids it",
           errno.EROFS: "mount tracefs read-write",
           errno.EINVAL: "see what the kernel says of it in tracing/error_log and in its log",
           errno.ENOMEM: "give a smaller --buffer-kb",
           errno.ENOSPC: "see how many probes and instances others have, and remove some"}


def what_happened(problem: OSError) -> str:
    """Return what happened, in the operating system's words."""
    return os.strerror(problem.errno) if problem.errno else " ".join(str(problem).split()) or type(problem).__name__


def next_step(number: int | None, otherwise: str = "") -> str:
    """Return what to do about an error of files, without a final stop.

    :param otherwise: what to do where the error is about the named file: it does not exist, or may not be read
    """
    if otherwise and number not in _NOT_OF_NAMES:
        return otherwise
    return _FILES.get(number or 0, "mend that and try again")


def kernel_step(number: int | None) -> str:
    """Return what to do where the kernel's tracing refuses something, without a final stop."""
    return _KERNEL.get(number or 0, _FILES.get(number or 0, "mend that and try again"))
