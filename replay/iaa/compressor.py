# SPDX-License-Identifier: GPL-2.0-or-later
"""deflate-iaa and deflate-iaa-dynamic on the emulated IAA: exact, as the device codes with the same functions
(:mod:`traces.lab.iaa.coder`).

For a recording of real hardware :mod:`model.crypto.deflate_iaa` says what can be said. What the driver answers when a
descriptor fails, or none is free, depends on the run: the device's job log has it.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from model.crypto import knownanswers
from model.crypto.compiled import Bytes, CompiledCompressor, at, compiled, first_bytes
from model.errno import E2BIG
from model.page import PAGE_SIZE
from traces.lab.iaa.coder import dynamic_block, fixed_block

__all__ = ["EMULATED", "EmulatedDeflateIaa", "EmulatedDeflateIaaDynamic"]


@compiled
def _fill(
    pages: NDArray[np.uint8], dynamic: bool, dst: Bytes, dlens: NDArray[np.int32], head: NDArray[np.uint64]
) -> None:
    for i in range(len(pages)):
        length = dynamic_block(pages[i], dst) if dynamic else fixed_block(pages[i], dst)
        dlens[at(i)] = length
        head[at(i)] = first_bytes(dst, length)


class EmulatedDeflateIaa(CompiledCompressor[Bytes]):
    """deflate-iaa; -E2BIG (check_completion(), 6.12 to 7.3) where the device reports that 4096 bytes are too few."""

    name = "deflate-iaa"
    err = E2BIG
    _dynamic: ClassVar[bool] = False
    #: SHA-1 of all results for the pages of `knownanswers`, one after another: it is the coder's version.
    _answer: ClassVar[str] = "c1e93338ba25c30e1cd8194eb7ec5826e933c6e4"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        self.ident = f"{self.name} emulated {self._answer[:12]}"

    def _make_scratch(self) -> Bytes:
        return np.empty(PAGE_SIZE, np.uint8)

    def _block(self, src: Bytes, scratch: Bytes) -> tuple[int, Bytes]:
        return (dynamic_block if self._dynamic else fixed_block)(src, scratch), scratch

    def _blocks(
        self, pages: NDArray[np.uint8], scratch: Bytes, dlens: NDArray[np.int32], head: NDArray[np.uint64]
    ) -> None:
        _fill(pages, self._dynamic, scratch, dlens, head)

    def _back(self, src: Bytes, dst: Bytes) -> int:
        # zlib with the device's window of 4 KiB; bytes behind the end of the stream are ignored.
        inflate = zlib.decompressobj(-12)
        try:
            page = inflate.decompress(src.tobytes(), len(dst) + 1)
        except zlib.error:
            return -1
        if not inflate.eof or len(page) > len(dst):
            return -1
        dst[: len(page)] = np.frombuffer(page, np.uint8)
        return len(page)

    def self_check(self) -> list[str]:
        """All results for the known pages are those that they were, and come back."""
        whole = hashlib.sha1(usedforsecurity=False)
        problems = []
        for name, page in knownanswers.pages():
            result = self.compress(page)
            whole.update(result.data)
            if not result.err and self.decompress(result.data) != page:
                problems.append(f"{self.ident}: page {name!r} does not come back from decompression")
        if whole.hexdigest() != self._answer:
            problems.append(f"{self.ident}: the known pages give {whole.hexdigest()}, not {self._answer}")
        return problems


class EmulatedDeflateIaaDynamic(EmulatedDeflateIaa):
    """deflate-iaa-dynamic of the posted series (v12 to v14), on a device of version 2."""

    name = "deflate-iaa-dynamic"
    _dynamic = True
    _answer = "1dc08d6299b4f781ca9f4abdc84abfe6084a49e2"


#: By zswap's name of the compressor.
EMULATED: Final[dict[str, type[EmulatedDeflateIaa]]] = {
    kind.name: kind for kind in (EmulatedDeflateIaa, EmulatedDeflateIaaDynamic)}
