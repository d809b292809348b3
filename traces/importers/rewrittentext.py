# SPDX-License-Identifier: GPL-2.0-or-later
"""Text of another form, rewritten line for line as the ftrace text that :mod:`traces.importers.ftracetext` reads."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Final

__all__ = ["MAX_LINE", "Rewritten"]

#: No line is longer: a probe has at most 128 arguments.
MAX_LINE: Final = 1 << 16


class Rewritten(io.RawIOBase):
    """The text as ftrace text, line for line, so that line numbers stay.

    :param name: the file's name, for messages
    :param chunks: its bytes, decompressed
    :param rewrite: gives the line that stands for a line without its end
    """

    def __init__(self, name: str, chunks: Iterable[bytes], rewrite: Callable[[bytes], bytes]) -> None:
        self.name = name
        self._blocks = self._make(chunks, rewrite)
        self._rest = b""

    @staticmethod
    def _make(chunks: Iterable[bytes], rewrite: Callable[[bytes], bytes]) -> Iterator[bytes]:
        rest = b""
        skipping = False
        for chunk in chunks:
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if skipping and lines:
                lines[0], skipping = b"? a line that is too long", False
            if lines:
                yield b"\n".join([rewrite(line.rstrip(b"\r")) for line in lines]) + b"\n"
            if skipping or len(rest) > MAX_LINE:
                rest, skipping = b"", True
        if rest or skipping:
            # A number in a line without an end may have lost digits: it is left without one here too.
            yield rewrite(rest) or b"? the last line is cut off"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while size < 0 or len(self._rest) < size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._rest += block
        size = len(self._rest) if size < 0 else size
        out, self._rest = self._rest[:size], self._rest[size:]
        return out
