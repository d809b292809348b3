# SPDX-License-Identifier: GPL-2.0-or-later
"""What a file is, told from its bytes: names lie, and people rename.

Compressed files (zstd, gzip, xz) are looked into; reading them streams.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from traces import jsontext
from traces.errors import BadInput
from traces.files import Reopened, open_input
from traces.importers.bpftracejson import sniff_bpftrace
from traces.importers.eventformat import HeaderPage
from traces.importers.ftracetext import sniff_text
from traces.importers.packed import DAMAGE, MAGIC_BYTES, unpacked
from traces.importers.perftext import sniff_perf
from traces.importers.tracedat import sniff_tracedat
from traces.parquetbounds import most_of
from traces.record.reasons import next_step

__all__ = ["TRUTH_HEAD", "chunks", "classify", "first_line", "open_stream", "read_all", "read_head", "read_json",
           "within"]

_HEAD: Final = 1 << 16
_CHUNK: Final = 4 << 20
_BUFFER: Final = 1 << 16
#: per_cpu/cpuN/stats as it is (tracing_stats_read() in kernel/trace/trace.c)
_STATS: Final = re.compile(rb"entries: \d{1,18}\noverrun: \d{1,18}\n")
#: What the JSON files have in them that say something of a run; others may hold what they like.
_OURS: Final = (b'"zswap_debugfs"', b'"zreplay_capture"', b'"zswap_list_lru"')
#: A workload's truth: the column of digests is called ``sha1``, or says which key they have.
TRUTH_HEAD: Final = re.compile(rb"phase,page,kind,(?:sha1|blake2b-([0-9a-f]{16}))\b")
#: Side files (counters, indices, tables) beyond this size are not believed.
_MAX_SIDE: Final = 1 << 30


def open_stream(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed when its content is zstd, gzip or xz.

    :raises BadInput: when it cannot be opened, or is no regular file
    """
    try:
        with open_input(path, follow=True) as raw:
            head = raw.read(MAGIC_BYTES)
        # Not held open: many are read at the same time.
        return unpacked(io.BufferedReader(Reopened(path), _BUFFER), head)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})",
                       next_step(problem.errno, "check the path")) from None


def _read(stream: BinaryIO, size: int) -> tuple[bytes, Exception | None]:
    """Read ``size`` bytes, or up to the end, or up to the damage that is then returned beside them.

    A plain ``read(size)`` throws away what it has decompressed when it comes to damage.
    """
    parts: list[bytes] = []
    left = size
    while left:
        try:
            data = stream.read1(left)  # type: ignore[attr-defined]
        except DAMAGE as problem:
            return b"".join(parts), problem
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts), None


def read_head(path: Path, size: int) -> bytes:
    """Return the first (decompressed) bytes of a file, fewer where it ends or is damaged before ``size``.

    :raises BadInput: when it cannot be opened
    """
    with open_stream(path) as stream:
        return _read(stream, size)[0]


def chunks(path: Path, size: int = _CHUNK) -> Iterator[bytes]:
    """Yield a file's (decompressed) bytes in chunks of at most ``size``.

    :raises BadInput: when the compressed data is damaged; what came before it has been yielded
    """
    with open_stream(path) as stream:
        while True:
            data, damage = _read(stream, size)
            if data:
                yield data
            if damage is not None:
                raise BadInput(path, "", f"the compressed data is damaged ({damage})", "copy the file again")
            if not data:
                return


def read_all(path: Path, limit: int = _MAX_SIDE) -> bytes:
    """Return a file's whole (decompressed) content of at most ``limit`` bytes.

    :raises BadInput: when it is longer or damaged
    """
    out = io.BytesIO()
    for data in within(path):
        out.write(data)
        if out.tell() > limit:
            raise BadInput(path, "", f"is longer than {limit} bytes", "give a smaller file")
    return out.getvalue()


def within(path: Path) -> Iterator[bytes]:
    """Yield a file's (decompressed) bytes for somebody who keeps them all in memory.

    :raises BadInput: as :func:`chunks`, and where a small file unpacks to more than :func:`most_of` its size
    """
    most, seen = most_of(path.stat().st_size), 0
    for data in chunks(path):
        seen += len(data)
        if seen > most:
            raise BadInput(path, "", f"{path.stat().st_size:,} bytes unpack to more than {most >> 20:,} MiB",
                           "decompress it yourself if that is right, and import what comes out")
        yield data


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a file's JSON object, or None when it is not one."""
    try:
        data = read_all(path, jsontext.MOST_BYTES)
        value = jsontext.parse(data)
    except jsontext.OutOfBounds as problem:
        if any(key in data for key in _OURS):
            raise BadInput(path, "", f"cannot be read: {problem}", "copy the file again, or take it again") from None
        return None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_ring(head: bytes, header: HeaderPage | None) -> bool:
    """True when the bytes begin like sub-buffers: lengths in range, time stamps in order, records in a row.

    Half of them may be damaged: the decoder counts that, and a ring must not pass for something else.
    """
    size, data_at = (header.size, header.data_offset) if header is not None else (4096, 16)
    if len(head) < size:
        return False
    before = good = seen = 0
    for at in range(0, min(len(head), 8 * size) - 15, size):
        stamp = int.from_bytes(head[at:at + 8], "little")
        length = int.from_bytes(head[at + 8:at + 16], "little") & ((1 << 27) - 1)
        good += stamp >= before and 8 <= length <= size - 16 \
            and _has_records(head[at + data_at:at + data_at + length])
        seen += 1
        before = stamp
    return good * 2 >= seen


def _has_records(data: bytes) -> bool:
    """True when one record follows the other for at least half of a sub-buffer's data."""
    at = 0
    while at + 4 <= len(data) and at * 2 < len(data):
        word, more = int.from_bytes(data[at:at + 4], "little"), int.from_bytes(data[at + 4:at + 8], "little")
        kind = word & 31
        if kind == 29 and not word >> 5:
            return True  # padding to the end
        if kind in (0, 29) and more < 4:
            return False
        at += 8 if kind > 29 else 4 * kind + 4 if 0 < kind < 29 else 4 + (more + 3 & ~3)
    return at <= len(data)


def classify(path: Path, header: HeaderPage | None = None) -> str:
    """Return what a file is: ``tracedat``, ``text``, ``perftext``, ``bpftrace``, ``ring``, ``pageindex``,
    ``pages``, ``truth``, ``counters``, ``objects``, ``config``, ``dmesg``, ``probes``, ``symbols``,
    ``ringstats``, ``json``, ``empty`` or ``unknown``.

    ``pages`` is said of any file of pages that is nothing else, not of lines of text.
    """
    head = read_head(path, _HEAD if header is None else max(_HEAD, header.size))
    if not head:
        return "empty"
    if sniff_tracedat(head[:16]):
        return "tracedat"
    if head.startswith(b"n,ts_ns,src,sha1"):
        return "pageindex"
    if TRUTH_HEAD.match(head):
        return "truth"
    if sniff_bpftrace(head):
        return "bpftrace"
    if head.lstrip()[:1] == b"{":
        value = read_json(path)
        if value is not None:
            if "zswap_debugfs" in value and "t" in value:
                return "counters"
            if value and all(isinstance(text, str) and text.startswith("entries:") for text in value.values()):
                return "ringstats"
            return "symbols" if "zswap_list_lru" in value else "json"
    if _STATS.match(head):
        return "ringstats"
    if head.startswith((b"f:", b"f256:", b"p:", b"r:", b"e:", b"r256:")):
        return "probes"
    if b"Kernel Configuration" in head[:400]:
        return "config"
    if b"Linux version " in head[:400]:
        return "dmesg"
    if sniff_text(head):
        return "text"
    if sniff_perf(head):
        return "perftext"
    if _is_ring(head, header):
        return "ring"
    if _is_objects(head):
        return "objects"
    return "pages" if len(head) >= 4096 and not _is_text(path, head) else "unknown"


def _is_text(path: Path, head: bytes) -> bool:
    """True for lines of text: a page may hold text, but a file of pages is of whole ones."""
    # Of a packed file the size tells nothing: more than its first page does.
    return b"\n" in head and not re.search(rb"[^\t\n\r\x1b -~\x80-\xff]", head) and path.stat().st_size % 4096 != 0


def first_line(path: Path) -> tuple[int, str]:
    """Return the first line of a file that is not blank, shortened, with its number; 0 for a file that is no text."""
    head = read_head(path, 4096)
    for number, line in enumerate(head.split(b"\n"), 1):
        if b"\0" in line:
            break
        if line.strip():
            return number, line[:80].decode("utf-8", "backslashreplace").strip()
    return 0, ""


def _is_objects(head: bytes) -> bool:
    """Records of u64 handle, u32 length, bytes: kernel pointers and lengths up to a page, several in a row."""
    at = seen = 0
    while at + 12 <= len(head) and seen < 8:
        handle = int.from_bytes(head[at:at + 8], "little")
        length = int.from_bytes(head[at + 8:at + 12], "little")
        if handle >> 47 != 0x1FFFF or not 0 < length <= 4096:
            return False
        at += 12 + length
        seen += 1
    return seen > 1
