# SPDX-License-Identifier: GPL-2.0-or-later
"""Contents of pages: synthetic mixes that depend only on a seed, or the pages of files."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from traces.events import PAGE_SIZE

__all__ = ["KINDS", "MIXES", "FilePages", "MadePages", "PageSource", "digest"]

#: mix -> (kind, weight).  ``solid`` holds neither zero pages, which never reach zswap, nor tiny ones: it fills a pool.
MIXES: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "mixed": (("text", 18), ("code", 24), ("zeros", 9), ("random", 8), ("json", 9), ("pointers", 9), ("half", 9),
              ("same", 7), ("sparse", 7)),
    "solid": (("half", 45), ("code", 30), ("random", 15), ("text", 10)),
    "poor": (("random", 40), ("half", 30), ("text", 30)),
    "zeros": (("zeros", 1),), "text": (("text", 1),), "code": (("code", 1),), "random": (("random", 1),),
    "json": (("json", 1),), "pointers": (("pointers", 1),), "half": (("half", 1),),
    "dense": (("dense", 1),),
    "edges": (("edge", 3), ("text", 4), ("random", 1)),
    "edges-fixed": (("edge-fixed", 3), ("text", 4), ("random", 1)),
}
#: How many bytes of a random page have to occur twice for its compressed form to take 4096 bytes: one more than that is
#: smaller, one less does not fit.  By lz4, lzo and lzo-rle of Linux 6.12 to 7.3.
_EDGES: Final = (21, 86, 88)

_CORPUS: Final = 64 * PAGE_SIZE
#: Letters as often as English has them, for synthetic words.
_LETTERS: Final = "etaoinshrdlu" * 3 + "cmfwypvbgkqjxz"
#: Frequent x86-64 instructions: a dot stands for a byte that varies.
_INSTRUCTIONS: Final = (b"\x48\x89.", b"\x48\x8b\x45.", b"\x48\x8d\x7c\x24.", b"\xe8..\xff\xff", b"\x85\xc0", b"\x74.",
                        b"\x75.", b"\x0f\x84..\x00\x00", b"\x5b\x5d\xc3", b"\x55\x48\x89\xe5", b"\x48\x83\xec.",
                        b"\x31\xc0", b"\xeb.", b"\x48\x8b\x05..\x00\x00", b"\x0f\xb6.", b"\x83\xf8.", b"\x41\x54\x53")


class PageSource(Protocol):
    """Gives pages one after the other."""

    def page(self, mix: str, rng: random.Random) -> tuple[str, bytes]:
        """Return the kind and the 4096 bytes of the next page."""


class MadePages:
    """Pages of the built-in mixes.

    The same seed gives the same pages in every process and on every machine.
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"corpus {seed}")
        words = ["".join(rng.choices(_LETTERS, k=rng.choice((2, 3, 3, 4, 5, 6, 8, 11)))) for _ in range(1500)]
        # A few words are most of a text.
        weights = [1000 // (rank + 3) + 1 for rank in range(len(words))]
        text = bytearray()
        while len(text) < _CORPUS:
            text += " ".join(rng.choices(words, weights, k=12)).capitalize().encode() + b".\n"
        self._text = bytes(text[:_CORPUS])
        code = bytearray()
        while len(code) < _CORPUS:
            for form in rng.choices(_INSTRUCTIONS, k=32):
                code += bytes(rng.randrange(256) if byte == 0x2E else byte for byte in form)
        self._code = bytes(code[:_CORPUS])

    def page(self, mix: str, rng: random.Random) -> tuple[str, bytes]:
        """Return the kind and content of a page that ``rng`` draws from a mix, or of one kind.

        :raises KeyError: for an unknown mix
        """
        kinds, weights = zip(*MIXES[mix], strict=True) if mix in MIXES else ((mix,), (1,))
        kind: str = rng.choices(kinds, weights)[0]
        return kind, KINDS[kind](self, rng)

    def _zeros(self, rng: random.Random) -> bytes:
        return bytes(PAGE_SIZE)

    def _same(self, rng: random.Random) -> bytes:
        return bytes([rng.randrange(1, 256)]) * PAGE_SIZE

    def _random(self, rng: random.Random) -> bytes:
        return rng.randbytes(PAGE_SIZE)

    def _text_page(self, rng: random.Random) -> bytes:
        at = rng.randrange(_CORPUS - PAGE_SIZE)
        return self._text[at:at + PAGE_SIZE]

    def _code_page(self, rng: random.Random) -> bytes:
        at = rng.randrange((_CORPUS - PAGE_SIZE) // 16) * 16
        return self._code[at:at + PAGE_SIZE]

    def _half(self, rng: random.Random) -> bytes:
        size = rng.choice((512, 1024, 2048, 3072))
        return rng.randbytes(size) + self._text_page(rng)[:PAGE_SIZE - size]

    def _dense(self, rng: random.Random) -> bytes:
        """Compresses to some 3950 bytes: an object above 3855 has a page of its own, with chains of up to 16."""
        return bytes(PAGE_SIZE - 3920) + rng.randbytes(3920)

    def _sparse(self, rng: random.Random) -> bytes:
        page = bytearray(PAGE_SIZE)
        for _ in range(rng.randrange(1, 40)):
            page[rng.randrange(PAGE_SIZE)] = rng.randrange(256)
        return bytes(page)

    def _edge(self, rng: random.Random) -> bytes:
        # Its compressed form is as long as the page, or just not.
        page, repeated = bytearray(rng.randbytes(PAGE_SIZE)), rng.choice(_EDGES) + rng.choice((-1, 0, 0, 1))
        page[2048:2048 + repeated] = page[64:64 + repeated]
        return bytes(page)

    def _edge_fixed(self, rng: random.Random) -> bytes:
        # The same for deflate-iaa's fixed code: a byte below 144 takes 8 bits, and a match of 4 at this distance 21.
        # With the block's header and end 4 bytes make the difference.
        page = bytearray(rng.randrange(144) for _ in range(PAGE_SIZE))
        if rng.randrange(4):
            page[2048:2052] = page[64:68]
        return bytes(page)

    def _pointers(self, rng: random.Random) -> bytes:
        # Slab-like: addresses of objects of one cache, all within some megabytes.
        base = 0xFFFF888000000000 + (rng.randrange(1 << 18) << 12)
        return b"".join((base + rng.randrange(1 << 16) * 64).to_bytes(8, "little") for _ in range(PAGE_SIZE // 8))

    def _json(self, rng: random.Random) -> bytes:
        text = ""
        while len(text) < PAGE_SIZE:
            text += json.dumps({"id": rng.randrange(1 << 30), "name": f"user{rng.randrange(1000)}",
                                "ok": rng.random() < .5, "score": round(rng.random(), 6)})
        return text[:PAGE_SIZE].encode()


#: kind -> how :class:`MadePages` makes one
KINDS: Final[dict[str, Callable[[MadePages, random.Random], bytes]]] = {
    "zeros": MadePages._zeros, "same": MadePages._same, "random": MadePages._random, "text": MadePages._text_page,
    "code": MadePages._code_page, "half": MadePages._half, "dense": MadePages._dense,
    "sparse": MadePages._sparse,
    "pointers": MadePages._pointers, "json": MadePages._json, "edge": MadePages._edge,
    "edge-fixed": MadePages._edge_fixed,
}


class FilePages:
    """The pages of a page dump, or of all files below a directory, in the order of their names, again and again.

    A file's last page is filled up with zeros.

    :param path: file or directory
    :raises ValueError: when it is empty
    :raises OSError: when it cannot be read
    """

    def __init__(self, path: Path) -> None:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        # Only places are kept: a dump may be larger than memory.
        self._pages = [(file, at) for file in files for at in range(0, file.stat().st_size, PAGE_SIZE)]
        if not self._pages:
            raise ValueError(f"{path} holds no pages")
        self._next = 0

    def __len__(self) -> int:
        return len(self._pages)

    def page(self, mix: str, rng: random.Random) -> tuple[str, bytes]:
        """Return the next page; its kind is ``zeros`` or ``file``, whatever the mix."""
        # Each worker starts elsewhere, and forks of one source must not all deal the same pages.
        if not self._next:
            self._next = rng.randrange(len(self._pages)) + 1
        file, at = self._pages[(self._next - 1) % len(self._pages)]
        self._next += 1
        with file.open("rb") as stream:
            stream.seek(at)
            data = stream.read(PAGE_SIZE).ljust(PAGE_SIZE, b"\0")
        return ("file" if any(data) else "zeros"), data


def digest(data: bytes) -> str:
    """Return the SHA-1 of a page's content, in hex."""
    return hashlib.sha1(data).hexdigest()
