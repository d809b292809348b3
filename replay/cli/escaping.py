# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place where what the command prints is made harmless for terminals: its two streams."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from traces.printable import escaped

__all__ = ["Escaping", "escaping", "unescaped"]

#: The colours that :func:`replay.cli.terminal.painted` gives verdicts, the whole of it: a name in colour is none.
_OWN: Final = re.compile("(\033\\[1;3[123]m(?:PASS|FAIL|UNDECIDED)\033\\[0m)")


class Escaping:
    """A text stream that writes what it is given with :func:`~traces.printable.escaped` characters.

    :param stream: where to; all but writing is left to it
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
        if text.isprintable():
            self.unescaped.write(text)
        else:
            self.unescaped.write("".join(part if at % 2 else escaped(part) for at, part in enumerate(_OWN.split(text))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)


def unescaped(stream: TextIO) -> TextIO:
    """Return the stream behind one that escapes, for a progress bar, which moves the cursor."""
    return getattr(stream, "unescaped", stream)


@contextmanager
def escaping() -> Iterator[None]:
    """Let all that is printed be escaped, on both streams."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, Escaping) else Escaping(stream)
        for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
