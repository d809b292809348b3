# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture's files by their names, and how long its rings were when their recorder had written them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from traces import jsontext
from traces.record.packing import SUFFIXES

__all__ = ["is_appended", "plain_name", "written_sizes"]

_APPENDED: Final = re.compile(r"(?:zmeta|pages)\.cpu\d+\.(?:raw|idx|bin)|flushed\.jsonl")


def plain_name(name: str) -> str:
    """Return what a file was called before it was packed."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def is_appended(name: str) -> bool:
    """True for a file that its recorder appends to while it records, packed or not since."""
    return _APPENDED.fullmatch(plain_name(name)) is not None


def written_sizes(lines: Iterable[bytes]) -> dict[str, int]:
    """Return how many bytes of each ring there were before it was packed, from the lines of ``flushed.jsonl``."""
    sizes: dict[str, int] = {}
    for line in lines:
        try:
            some = jsontext.parse(line)["sizes"]
            sizes.update({name: max(size, sizes.get(name, 0)) for name, size in some.items()
                          if name == plain_name(name) and name.endswith(".raw") and isinstance(size, int)})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return sizes
