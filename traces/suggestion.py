# SPDX-License-Identifier: GPL-2.0-or-later
"""Which existing names a user may have meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["meant"]


def meant(word: str, names: Iterable[str]) -> str:
    """Return a clause that offers the names most like a word, or ``""`` where none is like it.

    >>> meant("mainline-7.12", ["mainline-7.1", "mainline-7.2", "v14"])
    " (did you mean 'mainline-7.2' or 'mainline-7.1'?)"
    >>> meant("V14", ["v14"])
    " (did you mean 'v14'?)"
    >>> meant("quite different", ["v14"])
    ''
    """
    known = list(dict.fromkeys(names))
    same = [name for name in known if name.lower() == word.lower()]
    near = difflib.get_close_matches(word[:200], known, 2, 0.6)
    # A second name that is much less like it does not help.
    likeness = [difflib.SequenceMatcher(None, name, word[:200]).ratio() for name in near]
    found = same or [name for name, like in zip(near, likeness, strict=True) if like > likeness[0] - 0.15]
    return f" (did you mean {' or '.join(repr(name) for name in found)}?)" if found else ""
