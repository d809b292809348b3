# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the corpus of nasty files: ``python tests/corpus/make_corpus.py`` writes them next to this script.

Every file is below 4 KiB.  ``ring-*``, ``dat-*``, ``text-*`` and ``index-*`` are traces and side files;
``rec-*`` are manifests of recordings; what they stand for is in their names.  The files are kept, so that a
change of this script or of a compressor does not change what is tested; ``test_corpus.py`` says what must
become of them.
"""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import ringbuilder as rb  # noqa: E402
from ringbuilder import EVENTS, Ring  # noqa: E402

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Sub-buffers of the corpus's rings: small, so that files are.
SIZE = 1024
_MOST = 4096


def flip(data: bytes, *places: tuple[int, int]) -> bytes:
    """The data with bytes replaced."""
    out = bytearray(data)
    for at, value in places:
        out[at] = value
    return bytes(out)


def word(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("<I", value) + data[at + 4:]


def rings() -> dict[str, bytes]:
    """Raw rings, truncated, flipped and lying."""
    good = rb.ring([(rb.T0 + 10 * n, EVENTS["load"].pack(n, swp=n)) for n in range(60)], SIZE)
    noise = bytes((n * 197 + n * n // 7) & 255 for n in range(3 * SIZE))
    lost = Ring(SIZE).add(5, EVENTS["load"].pack(1)).flush().lose(7).add(9, EVENTS["load"].pack(2)).flush()
    lost.lose(None).add(12, EVENTS["load"].pack(3))
    backwards = Ring(SIZE)
    for ts in (500, 400, 600):
        backwards.add(ts, EVENTS["load"].pack(1)).flush()
    packed = zstd.compress(noise + good)
    return {
        "ring-good": good, "ring-cut-in-header": good[:SIZE + 7], "ring-cut-in-record": good[:2 * SIZE + 100],
        "ring-one-byte-short": good[:-1], "ring-header-only": good[:16], "ring-zeros": bytes(3 * SIZE),
        "ring-ones": b"\xff" * (3 * SIZE), "ring-noise": noise,
        "ring-commit-too-long": word(good, SIZE + 8, 0x7FFFFFF), "ring-commit-all-ones": word(good, SIZE + 8, 0xFFFFFFFF),
        "ring-first-commit-too-long": word(good, 8, 5000), "ring-first-stamp-huge": flip(good, (7, 0x7F)),
        "ring-negative-stamp": flip(good, (7, 0xFF)), "ring-record-beyond-end": word(good, SIZE + 16, 28),
        "ring-length-word-huge": word(word(good, SIZE + 16, 0), SIZE + 20, 0xFFFFFFFF),
        "ring-length-word-zero": word(word(good, SIZE + 16, 0), SIZE + 20, 0),
        "ring-discard-beyond-end": word(word(good, SIZE + 16, 29 | 32), SIZE + 20, 0xFFFFFFF0),
        "ring-extend-everywhere": good[:16] + struct.pack("<II", 0xFFFFFFFE, 0xFFFFFFFF) * ((SIZE - 16) // 8) + good[SIZE:],
        "ring-stamps-everywhere": good[:16] + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) * ((SIZE - 16) // 8) + good[SIZE:],
        "ring-short-records": Ring(SIZE).add(5, EVENTS["store"].pack(1)[:8]).add(6, EVENTS["load"].pack(1)[:4])
        .add(7, EVENTS["load"].pack(2)).bytes(),
        "ring-unknown-ids": Ring(SIZE).add(5, rb.common(60000, 1)).add(7, EVENTS["load"].pack(2)).bytes(),
        "ring-lost": lost.bytes(), "ring-backwards": backwards.bytes(),
        "ring-bit-flips": flip(good, *((at, good[at] ^ 0x10) for at in range(16, len(good), 97))),
        "ring-zstd-cut": packed[:len(packed) - 40], "ring-zstd-flipped": flip(packed, (len(packed) // 2, packed[len(packed) // 2] ^ 255)),
        "ring-zstd-head-only": packed[:9], "ring-gzip-cut": gzip.compress(good, mtime=0)[:-30],
        "ring-gzip-flipped": flip(gzip.compress(good, mtime=0), (40, 0xFF), (41, 0xFF), (42, 0xFF)),
        "ring-zstd-bomb": zstd.compress(bytes(100 << 20)),
    }


def tracedats() -> dict[str, bytes]:
    """trace.dat files: cut, flipped, of other versions, with absurd lengths."""
    data = rb.ring([(rb.T0 + 10 * n, EVENTS["load"].pack(n)) for n in range(20)], 512)
    good = rb.tracedat([data[:1024]], ["load"], 512)
    table = good.index(b"flyrecord\0") + 10
    header = good.index(b"header_page\0") + 12
    return {
        "dat-good": good, "dat-magic-only": good[:10], "dat-no-version": good[:11], "dat-version-5": good.replace(b"tracing6", b"tracing5"),
        "dat-version-8": good.replace(b"tracing6", b"tracing8"), "dat-version-huge": good.replace(b"tracing6\0", b"tracing" + b"9" * 500),
        "dat-big-endian": flip(good, (12, 1)), "dat-page-size-0": word(good, 14, 0), "dat-page-size-huge": word(good, 14, 0xFFFFFFFF),
        "dat-header-size-huge": word(word(good, header, 0xFFFFFFFF), header + 4, 0x7FFFFFFF),
        "dat-cut-in-formats": good[:900], "dat-cut-in-table": good[:table + 5], "dat-cut-before-data": good[:table + 16],
        "dat-cut-in-data": good[:-100], "dat-offset-huge": word(word(good, table, 0xFFFFFFFF), table + 4, 0xFFFFFFFF),
        "dat-size-huge": word(word(good, table + 8, 0xFFFFFFFF), table + 12, 0xFFFFFFFF),
        "dat-size-beyond-end": word(good, table + 8, 1 << 20), "dat-format-without-id": good.replace(b"ID: 1502", b"ID: none"),
        "dat-format-far-field": good.replace(b"offset:16;", b"offset:99;"), "dat-no-header-page": good.replace(b"commit;", b"comm__;"),
        "dat-bit-flips": flip(good, *((at, good[at] ^ 4) for at in range(20, len(good), 151))),
        "dat-v7-chain-to-itself": b"\x17\x08\x44tracing7\0\0\x08" + struct.pack("<I", 4096) + b"none\0\0" + struct.pack("<Q", 32)
        + bytes(8) + struct.pack("<HHIQHIQ", 0, 0, 0, 14, 0, 8, 32),
        "dat-v7-unknown-compression": b"\x17\x08\x44tracing7\0\0\x08" + struct.pack("<I", 4096) + b"rot13\0\0" + bytes(8),
    }


def texts() -> dict[str, bytes]:
    """Ftrace text that is cut, garbled or not what it says."""
    head = b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 2/9   #P:2\n#\n"
    line = b"         python3-10      [000] ...2.    10.000001: store_ret: (a+0x80/0xa0 <- zswap_store) ret=0x1\n"
    return {
        "text-good": head.replace(b"2/9", b"2/2") + line * 2, "text-head-only": head, "text-cut": head + line + line[:60], "text-lost": head + line + b"CPU:0 [LOST 7 EVENTS]\n" + line,
        "text-lost-only": head + b"CPU:0 [LOST 7 EVENTS]\n", "text-junk": head + line + b"\xff\xfe junk\n" * 9,
        "text-number-too-large": head + line + line.replace(b"0x1", b"0x" + b"f" * 40), "text-no-newline": (head + line)[:-1],
        "text-nul": head + line + b"\0" * 50, "text-gzip-cut": gzip.compress((head + line * 20), mtime=0)[:-20],
        "text-zstd-cut": zstd.compress(head + bytes(range(33, 127)) * 9 + line * 20)[:-20],
        "text-negative-entries": head.replace(b"2/9", b"9/2") + line,
    }


def sides() -> dict[str, bytes]:
    """Files that lie next to a trace; they are imported with a good ring."""
    row = "0,10000000110,ffff888000100000," + "a" * 40
    truth = "phase,page,kind,sha1,swap_type,swap_offset\n"
    texts: dict[str, str] = {
        "index-good": f"n,ts_ns,src,sha1\n{row}\n", "index-head-only": "n,ts_ns,src,sha1", "index-cut": f"n,ts_ns,src,sha1\n{row[:40]}",
        "index-out-of-order": f"n,ts_ns,src,sha1\n1{row[1:]}\n", "index-huge-number": f"n,ts_ns,src,sha1\n{'9' * 3000},1,1,{'a' * 40}\n",
        "index-negative-address": f"n,ts_ns,src,sha1\n0,1,-5,{'a' * 40}\n", "index-quote": f'n,ts_ns,src,sha1\n0,1,"5,{"a" * 40}\n',
        "index-carriage": f"n,ts_ns,src,sha1\r{row}\r", "index-blank-lines": f"n,ts_ns,src,sha1\n\n\n{row}\n",
        "truth-good": truth + "out1,0,zero,,0,7\n", "truth-head-only": truth, "truth-columns-only": "phase,page,kind,sha1\n",
        "truth-long-line": truth + "a,1,b,c,0,1\na,1,b,c,0,1,2,3\n", "truth-huge": truth + f"a,1,b,c,0,{'9' * 500}\n",
        "truth-quote": truth + 'a,"1,b,c,0,1\n', "truth-word": truth + "a,1,b,c,0,far\n",
        "counters-no-time": '{"t": null, "zswap_debugfs": {}}', "counters-infinite": '{"t": Infinity, "zswap_debugfs": {}}',
        "counters-negative": '{"t": -1, "zswap_debugfs": {}}', "counters-params-text": '{"t": 1, "zswap_debugfs": {}, "params": "enabled"}',
        "counters-cut": '{"t": 1, "zswap_debugfs": {', "counters-deep": '{"a":' * 800, "counters-surrogate":
        '{"t": 1, "zswap_debugfs": {}, "params": {"compressor": "\\ud800"}}', "symbols-word": '{"zswap_list_lru": "here"}',
        "symbols-list": '{"zswap_list_lru": []}', "config-chain-99": "# Linux/x86 7.3 Kernel Configuration\nCONFIG_ZSMALLOC_CHAIN_SIZE=99\n",
        "config-chain-word": "# Linux/x86 7.3 Kernel Configuration\nCONFIG_ZSMALLOC_CHAIN_SIZE=\n",
        "config-64k": "# Linux/arm64 7.3 Kernel Configuration\nCONFIG_PAGE_SHIFT=16\n", "dmesg-cut": "[    0.0] Linux version ",
        "probes-odd": "f:\nf:/\np:a/b\nf:z/store\nf:z//load x\n", "format-huge-id": EVENTS["load"].text().replace("1502", "9" * 900),
        "format-pid-far": EVENTS["load"].text().replace("common_pid;\toffset:4", "common_pid;\toffset:90000"),
        "format-negative": EVENTS["load"].text().replace("offset:16", "offset:-16"), "format-empty": "",
        "format-same-id": EVENTS["load"].text().replace("name: load", "name: load2"),
        "header_page-huge": rb.header_page(1 << 40), "header_page-tiny": rb.header_page(32), "header_page-empty": "",
        "header_page-odd": rb.header_page(1021),
    }
    objects = b"".join(struct.pack("<QI", 0xFFFF888000001000 + 8 * n, 40) + bytes(40) for n in range(9))
    return {**{name: text.encode() for name, text in texts.items()}, "objects-good": objects, "objects-cut": objects[:-1],
            "objects-huge": objects + struct.pack("<QI", 1, 0xFFFFFFFF), "empty": b"", "one-byte": b"{", "newline": b"\n",
            "zstd-magic-only": b"\x28\xb5\x2f\xfd", "gzip-magic-only": b"\x1f\x8b", "zstd-of-nothing": zstd.compress(b"")}


def manifests() -> dict[str, bytes]:
    """manifest.json of recordings without any other file."""
    good: dict[str, Any] = {"format_version": 1, "kernel": {}, "rows": 0, "segments": [], "snapshots": [], "probes": {},
                            "losses": [], "files": {}, "complete": True, "source": {}, "config": {}}
    segment = {"file": "events/00000.parquet", "rows": 5, "first_ts": 0, "last_ts": 1}
    digest = {"events/00000.parquet": "0" * 64}
    changed: dict[str, dict[str, Any]] = {
        "good": {}, "version-2": {"format_version": 2}, "version-huge": {"format_version": 10 ** 300}, "version-text": {"format_version": "1"},
        "segment-missing": {"rows": 5, "segments": [segment], "files": digest},
        "segment-undigested": {"rows": 5, "segments": [segment]},
        "segment-rows-huge": {"segments": [{**segment, "rows": 1 << 62}], "files": digest},
        "segment-rows-negative": {"segments": [{**segment, "rows": -1}], "files": digest},
        "segment-outside": {"segments": [{**segment, "file": "../../../etc/passwd"}], "files": digest},
        "segment-null": {"segments": [None]}, "snapshot-outside": {"snapshots": [{"file": "/etc/passwd", "label": "x", "ts": 1}]},
        "file-outside": {"files": {"../../etc/passwd": "0" * 64}}, "file-absolute": {"files": {"/etc/passwd": "0" * 64}},
        "file-long": {"files": {"x" * 2000: ""}}, "file-escape": {"files": {"\u001b[2J\n": ""}}, "kernel-list": {"kernel": []},
    }
    out = {f"rec-{name}": json.dumps({**good, **change}).encode() for name, change in changed.items()}
    return {**out, "rec-empty": b"", "rec-cut": json.dumps(good).encode()[:-20], "rec-list": b"[1]", "rec-deep": b'{"a":' * 700,
            "rec-number-huge": b"1" * 3900, "rec-bom": b"\xff\xfe" + json.dumps(good).encode("utf-16-le")}


def corpus() -> dict[str, bytes]:
    """All files by name."""
    return {**rings(), **tracedats(), **texts(), **sides(), **manifests()}


def main() -> None:
    for name, data in corpus().items():
        assert len(data) < _MOST, (name, len(data))
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
