# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares a capture's files with the sizes and sums that its recorder wrote at the end (:mod:`traces.record.sums`)."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final

from traces.errors import BadInput
from traces.files import regular
from traces.importers.capturefiles import is_appended, plain_name
from traces.importers.inputfile import read_json
from traces.record.oserrors import next_step
from traces.record.packing import SUFFIXES
from traces.record.sums import NAME, sum_of

__all__ = ["check_sums"]

_AGAIN: Final = "copy the capture again"


def check_sums(directory: Path) -> list[str]:
    """Compare a capture's files with its sums; returns the names of those that are not there, in order.

    A capture without sums was not finished by its recorder, or is of an older one: nothing is compared then.  A shorter
    file that the recorder appended to is not refused here: the flushes say up to which time its events are whole.

    :raises BadInput: when a file is not what the recorder wrote
    """
    path = directory / NAME
    if not os.path.lexists(path):
        return []
    regular(path, directory)
    value = read_json(path)
    files = value.get("files") if value is not None else None
    if not isinstance(files, dict) or not all(_is_sum(name, each) for name, each in files.items()):
        raise BadInput(path, "", "holds no sizes and sums of the capture's files", _AGAIN)
    missing = []
    for name, (size, total) in files.items():
        file = directory / name
        if not os.path.lexists(file):
            if not _in_another_form(file):
                missing.append(name)
            continue
        regular(file, directory)
        found = file.stat().st_size
        if found < size and is_appended(file.name):
            continue
        try:
            same = found == size and sum_of(file) == [size, total]
        except OSError as problem:
            raise BadInput(file, "", f"cannot be read ({problem.strerror})", next_step(problem.errno, _AGAIN)) from None
        if not same:
            how = "its sum differs" if found == size else f"it has {found:,} bytes, not {size:,}"
            raise BadInput(file, "", f"is not what the recorder wrote: {how} ({NAME})",
                           f"{_AGAIN}; to import it as it is, remove {NAME}")
    return sorted(missing)


def _is_sum(name: str, value: object) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name \
        and isinstance(value, list) and len(value) == 2 and all(type(number) is int and number >= 0 for number in value)


def _in_another_form(path: Path) -> bool:
    """True when the file was packed or unpacked later: a packed form has sums of its own."""
    others = [path.with_name(path.name + suffix) for suffix in (*SUFFIXES, ".zst")]
    plain = path.with_name(plain_name(path.name))
    return any(map(os.path.lexists, others)) or (plain != path and os.path.lexists(plain))
