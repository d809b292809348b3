# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports: what cannot be imported is refused with one sentence, and nothing is left behind."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ringbuilder as rb
from importing import FILES, OBJECTS, TEXT, TRUTH, block_of, cut, imported
from ringbuilder import T0, page

from traces.errors import BadInput
from traces.importers import filetype as content
from traces.importers import import_source, inputfile, pagefiles
from traces.importers.assemble import assemble
from traces.importers.source import Block, RunFacts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


# (change of a good directory, part of the sentence).

def change(name: str, old: str | bytes, new: str | bytes) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        data = (source / name).read_bytes()
        before, after = (x.encode() if isinstance(x, str) else x for x in (old, new))
        assert before in data
        (source / name).write_bytes(data.replace(before, after, 1))
    return apply


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes(data) and None


def drop(*names: str) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        for name in names:
            for path in source.glob(name):
                path.unlink()
    return apply


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(source: Path) -> None:
        for one in changes:
            one(source)
    return apply


DIGEST = hashlib.sha1(b"abc").hexdigest()
BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no trace at all": (drop("zmeta*"), "", "holds no trace that zreplay can import (found: config, counters, dmesg"),
    "nothing": (drop("*.*", "formats/*"), "", "holds no trace that zreplay can import (found: nothing)"),
    "a ring without formats": (drop("formats/*"), "zmeta.cpu0.raw", "is a raw ring buffer without its event formats"),
    "no known event": (both(drop("counters*"), put("zmeta.cpu0.raw", rb.ring([(5, rb.common(9, 1))])), drop("zmeta.cpu1*")), "",
                       "holds no event that zreplay knows"),
    "a header of another layout": (change("formats/header_page", "offset:16", "offset:12"), "formats/header_page",
                                   "a layout that no kernel uses"),
    "a header without commit": (change("formats/header_page", "commit", "omit"), "formats/header_page", "no field 'commit'"),
    "a format without id": (change("formats/store", "ID: 1500", "ID: x"), "formats/store", "this is not an event format"),
    "a format without a pid": (change("formats/store", "common_pid", "pid"), "formats/store", "this is not an event format"),
    "a format with a large id": (change("formats/store", "ID: 1500", "ID: 65536"), "formats/store", "65536 does not fit 16 bits"),
    "a format with a huge id": (change("formats/store", "ID: 1500", "ID: " + "1" * 9999), "formats/store", "does not fit 16"),
    "a format with a wild offset": (change("formats/store", "offset:16", "offset:9999999"), "formats/store", "make no sense"),
    "a format with an offset below 0": (change("formats/store", "offset:16", "offset:-1"), "formats/store", "make no sense"),
    "a format with a huge offset": (change("formats/store", "offset:16", "offset:" + "9" * 9999), "formats/store", "make no sense"),
    "two events of one id": (change("formats/store", "ID: 1500", "ID: 1502"), "formats/store", "has the id 1502 of event 'load'"),
    "a format that is too long": (put("formats/store", b" " * ((1 << 20) + 1)), "formats/store", "is too long for an event format"),
    "a format that is something else": (put("formats/store", b"\xff\0\x80"), "formats/store", "this is not an event format"),
    "64 KiB pages": (change("kernel.config", "SHIFT=12", "SHIFT=16"), "kernel.config", "pages of 2^16 bytes are not modelled"),
    "a chain size that is not a number": (change("kernel.config", "SIZE=8", "SIZE=x"), "kernel.config", "'x' is not a number from 4 to 16"),
    "a chain size of 99": (change("kernel.config", "SIZE=8", "SIZE=99"), "kernel.config", "'99' is not a number from 4 to 16"),
    "a symbol that is not an address": (change("symbols.json", "ffffffff83f07f60", "nowhere"), "symbols.json", "is not a hexadecimal address"),
    "a snapshot without time": (put("counters-end.json", b'{"t": "now", "zswap_debugfs": {}}'), "counters-end.json", "is not a time in seconds"),
    "a snapshot of another time": (put("counters-end.json", b'{"t": 1e300, "zswap_debugfs": {}}'), "counters-end.json", "it holds a number of more than 64 bits"),
    "a snapshot at NaN": (put("counters-end.json", b'{"t": NaN, "zswap_debugfs": {}}'), "counters-end.json", "it holds NaN, which is not a number"),
    "parameters that are a list": (put("counters-end.json", b'{"t": 1, "zswap_debugfs": {}, "params": ["enabled"]}'),
                                   "counters-end.json", "key 'params': is not an object"),
    "parameters that are null": (put("counters-end.json", b'{"t": 1, "zswap_debugfs": {}, "params": null}'),
                                 "counters-end.json", "key 'params': is not an object"),
    **{f"a truth of which {name}": (put("truth.csv", TRUTH + f"a,0,text,{DIGEST},0,1\n{line}".encode()),
                                    "truth.csv", said) for name, line, said in (
        ("a digest lost digits", f"a,1,text,{DIGEST[:-2]},0,2\n", "line 3: is not a line of a workload: its digest is not one of 40 or 64 hex digits"),
        ("a digest has other letters", f"a,1,text,{DIGEST[:-1]}g,0,2\n", "line 3: is not a line of a workload: its digest"),
        ("a line came twice", f"a,0,text,{DIGEST},0,1\n", "line 3: is not a line of a workload: its phase and page stand in an earlier line"),
        ("a phase came twice", f"b,0,text,{DIGEST},0,1\na,1,text,{DIGEST},0,2\n", "line 4: is not a line of a workload: its phase was over before"),
        ("a page has no number", f"a,x,text,{DIGEST},0,2\n", "is not a truth table"),
        ("a slot is below none", f"a,1,text,{DIGEST},-2,2\n", "line 3: is not a line of a workload: its swap slot is less than -1"),
        ("a phase is empty", f",1,text,{DIGEST},0,2\n", "line 3: is not a line of a workload: it has no phase"))},
    "a truth without columns": (put("truth.csv", b"phase,page,kind,sha1\na,1,b,c\n"), "truth.csv", "is not a truth table"),
    "a truth with a long line": (put("truth.csv", TRUTH + b"a,1,b,c,0,1\na,1,b,c,0,1,2,3\n"), "truth.csv", "is not a truth table"),
    "a truth with words for numbers": (put("truth.csv", TRUTH + b"a,1,b,c,0,far\n"), "truth.csv", "is not a truth table"),
    "a truth with a number missing": (put("truth.csv", TRUTH + b"a,1,b,c,,1\n"), "truth.csv", "is not a truth table"),
    "a truth with a huge number": (put("truth.csv", TRUTH + b"a,1,b,c,0,1" + b"0" * 30 + b"\n"), "truth.csv", "is not a truth table"),
    "a truth cut within zstd": (both(put("truth.csv", zstd.compress(TRUTH + b"".join(b"out1,%d,k,%d,0,%d\n" % (n, n * n, n) for n in range(99999)))),
                                     cut("truth.csv", 200000)), "truth.csv", "the compressed data is damaged"),
    "an index line too short": (change("pages.idx", "\n3,", "\n3 "), "pages.idx", "line 5: is not 'n,ts_ns,src,sha1' in order"),
    "an index out of order": (change("pages.idx", "\n3,", "\n4,"), "pages.idx", "line 5: is not"),
    "an index with a wild address": (change("pages.idx", ",ffff8880", ",1ffff8880"), "pages.idx", "line 2: is not"),
    "an index with a wild time": (change("pages.idx", ",100", f",{1 << 64}"), "pages.idx", "line 2: is not"),
    "an index with an odd digest": (change("pages.idx", hashlib.sha1(page(0)).hexdigest(), "ab " * 13 + "f"), "pages.idx", "line 2: is not"),
    "an index with a huge field": (put("pages.idx", b"n,ts_ns,src,sha1\n" + b"x" * 200000), "pages.idx", "line 2: is not"),
    "a dump too short": (cut("pages.bin", 12 * 4096 + 5), "pages.bin", "offset 49157: the dump ends here but its index names 13 pages (53248 bytes)"),
    "a dump too long": (lambda s: put("pages.bin", (s / "pages.bin").read_bytes() + b"x")(s), "pages.bin",
                        "offset 53248: the dump continues here, but its index names 13 pages"),
    "a dump that does not match": (change("pages.bin", page(10), page(77)), "pages.idx", "its bytes do not match its SHA-1"),
    "half a page": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(rb.page_halves(T0, rb.PAGE_OFFSET, page(1))[:1]))),
                    "zpage.cpu0.raw", "holds no"),
    "half of the last page": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(
        rb.page_halves(T0, rb.PAGE_OFFSET, page(1)) + rb.page_halves(T0 + 9, rb.PAGE_OFFSET, page(2))[:1]))),
        "zpage.cpu0.raw", f"page at address {rb.PAGE_OFFSET:#x}: only its half 0 was recorded"),
    "the same half twice": (both(drop("pages.*"), put("zpage.cpu0.raw", rb.ring(
        rb.page_halves(T0, rb.PAGE_OFFSET, page(1))[:1] * 2 + rb.page_halves(T0 + 9, rb.PAGE_OFFSET, page(2))[1:] * 2))),
        "zpage.cpu0.raw", "only its half 0 was recorded"),
    "an object longer than a page": (put("o", OBJECTS + struct.pack("<QI", 1, 4097) + bytes(4097)), "o",
                                     f"offset {len(OBJECTS)}: the record is cut off or longer than a page"),
    "an object of no length": (put("o", OBJECTS + struct.pack("<QI", 1, 0)), "o", "the record is cut off or longer"),
    "an object cut off": (put("o", OBJECTS[:-1]), "o", "the record is cut off or longer than a page"),
    "an object's head cut off": (put("o", OBJECTS + b"12345678901"), "o", "the record is cut off or longer than a page"),
    "a trace.dat of a big-endian box": (both(drop("zmeta*"), put("t", rb.tracedat([], big_endian=True))), "t", ""),
    "a trace.dat cut in its head": (both(drop("zmeta*"), put("t", FILES["tracedat"][:400])), "t", "bytes"),
    "a trace.dat in zstd": (both(drop("zmeta*"), put("t", zstd.compress(FILES["tracedat"]))), "t", ""),
    "a trace.dat with a bad format": (both(drop("zmeta*"), put("t", FILES["tracedat"].replace(b"ID: 1500", b"ID: abcd"))), "t",
                                      "format of z/store: this is not an event format"),
    "a trace.dat with a bad header": (both(drop("zmeta*"), put("t", FILES["tracedat"].replace(b"commit;", b"commut;"))), "t",
                                      "no field 'commit'"),
    "text that breaks off within gzip": (both(drop("zmeta*"), drop("pages.*"),
                                              put("u", gzip.compress(TEXT * 500)[:-9])), "u", "cannot be read further"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_imported(tmp_path: Path, what: str) -> None:
    """One sentence that names the file and says what to do, and nothing is left behind."""
    apply, name, expected = BAD[what]
    source = rb.write_capture(tmp_path / "run")
    apply(source)
    if what == "half a page":
        # A page ring without one whole page is not a page ring; the run is imported without contents.
        assert imported(source, tmp_path)[0].pages is None
        return
    with pytest.raises(BadInput) as caught:
        import_source(source, tmp_path / "rec")
    check_sentence(caught.value, source / name if name else Path("run"), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def check_sentence(problem: BadInput, path: Path, expected: str) -> None:
    text = str(problem)
    assert str(path) in text
    assert expected in text
    assert text.endswith(f"; {problem.todo}.")
    assert len(problem.todo.split()) > 2
    assert not any(ord(letter) < 32 for letter in text)
    assert "Traceback" not in text
    assert len(text) < 700


@pytest.mark.parametrize(("options", "name", "expected"), [
    ({"events": "nowhere"}, "run/nowhere", "cannot be read (No such file or directory)"),
    ({"events": "truth.csv"}, "run/truth.csv", "is not a trace that zreplay can import"),
    ({"events": "formats"}, "run/formats", "cannot be read (Is a directory)"),
    ({"formats": "/nowhere"}, "/nowhere/header_page", "cannot be read (No such file or directory)"),
    ({"formats": "/dev/null"}, "/dev/null/header_page", "cannot be read (Not a directory)"),
])
def test_wrong_options(tmp_path: Path, options: dict[str, str], name: str, expected: str) -> None:
    source = rb.write_capture(tmp_path / "run")
    with pytest.raises(BadInput) as caught:
        import_source(source, tmp_path / "rec", **options)
    check_sentence(caught.value, tmp_path / name, expected)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        import_source(tmp_path / "nowhere", tmp_path / "rec")
    check_sentence(caught.value, tmp_path / "nowhere", "does not exist; check the path.")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_an_existing_output_is_left_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "rec").mkdir() if kind == "directory" else (tmp_path / "rec").write_text("mine")
    for source in (rb.write_capture(tmp_path / "run"), tmp_path / "nowhere"):
        with pytest.raises(BadInput) as caught:
            import_source(source, tmp_path / "rec")
        check_sentence(caught.value, tmp_path / "rec", "the output exists already")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rec", "run"]


def test_a_reader_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[Block]:
        yield block_of([1, 2], {})
        yield block_of([3, 4], {})
        raise BadInput("x", "offset 7", "broke", "copy it again")

    with pytest.raises(BadInput, match="x, offset 7: broke; copy it again"):
        assemble(str(tmp_path / "rec"), blocks(), RunFacts(), {})
    assert list(tmp_path.iterdir()) == []


def test_too_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagefiles, "_MAX_PAGES", 12)
    with pytest.raises(BadInput, match=r"pages\.idx: more than 12 pages are more than an import takes; split the run\."):
        import_source(rb.write_capture(tmp_path / "run"), tmp_path / "rec")


def test_a_dump_that_would_fill_the_disk(tmp_path: Path) -> None:
    """No more of a compressed dump is unpacked than its index names."""
    source = rb.write_capture(tmp_path / "run")
    (source / "pages.bin").write_bytes(zstd.compress(b"x" * (200 << 20)))
    seen: list[int] = []
    original = inputfile._read

    def counted(stream: Any, size: int) -> Any:
        data, damage = original(stream, size)
        seen.append(len(data))
        return data, damage

    inputfile._read = counted
    try:
        with pytest.raises(BadInput, match="the dump continues here"):
            import_source(source, tmp_path / "rec")
    finally:
        inputfile._read = original
    assert sum(seen) < 16 << 20


def test_names_of_files_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    problem = BadInput("a\x1b[2Jb", "", "Error tokenizing data.\nExpected 6\n", "look again")
    assert str(problem) == "a [2Jb: Error tokenizing data. Expected 6; look again."


def test_probe_definitions_that_would_keep_a_search_busy(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "dynamic_events.txt").write_text("f:" + "/a" * 100000 + "\nf:z/load zswap_load swp=1\n")
    recording, _ = imported(source, tmp_path)
    assert recording.manifest["probes"]["zswap_load"]["function"] == "zswap_load"


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    source = rb.write_capture(tmp_path / "run", pages="none")
    (source / "counters-deep.json").write_bytes(b'{"a":' * 100000)
    imported(source, tmp_path)


@pytest.mark.parametrize("text", [b"zswap monitor attached\n" + b"stored 4096 pages\n" * 400, b"\nzswap monitor attached\n",
                                  b"zswap monitor attached\n\x1b[1mbold\n" * 300])
def test_a_text_of_no_known_kind_is_shown(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(text)
    assert content.classify(path) == "unknown"
    with pytest.raises(BadInput) as problem:
        import_source(path, tmp_path / "rec")
    said = str(problem.value)
    line = 1 + text.startswith(b"\n")
    assert f"log.txt, line {line}: is not of a kind that zreplay can import: 'zswap monitor attached'" in said
    for kind in ("trace-cmd report", "perf script", "bpftrace -f json"):
        assert kind in said


def test_whole_pages_of_text_are_pages(tmp_path: Path) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(b"a line\n".ljust(4096, b"x"))
    assert content.classify(path) == "pages"


def test_snapshots_beside_events_of_another_clock_are_missing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "trace.txt").write_text("task-100   [000]  11171218000: store: (zswap_store+0x4/0xcd0) folio=0x1 swp=0x1\n")
    (source / "counters-end.json").write_bytes(b'{"t": 11.2, "zswap_debugfs": {}}')
    summary = import_source(source, tmp_path / "rec")
    assert summary["rows"] == 1
    assert summary["missing"] == ["1 counter snapshots cannot be put in place: the events' stamps are of another clock (raw)"]


LINES = """\
 c-1 [000] ...1. 1.000001: store: (zswap_store+0x4/0xcd0) folio=0xffffea0000000000 fl=%s swp=0x1 fl1=0x2
 c-1 [000] ...1. 1.000002: comp: (crypto_acomp_compress+0x4/0xe0) pglink=0xffffea0000000002 off=0 slen=%d room=4096
 c-1 [000] ...1. 1.000003: decomp: (x+0x4/0xe0) slen=100 dlen=%d
"""


@pytest.mark.parametrize(("name", "data", "said"), [
    ("trace.txt", LINES % ("0x0", 16384, 4096), "crypto_acomp_compress() of 16384 bytes for one page: pages of 2^14 bytes are not modelled"),
    ("trace.txt", LINES % ("0x0", 4096, 65536), "crypto_acomp_decompress() of 65536 bytes for one page: pages of 2^16 bytes are"),
    ("kernel.config", "#\n# Linux/arm64 6.12.0 Kernel Configuration\n", "kernel.config: was recorded on arm64, which is not modelled"),
    ("kernel.config", "#\n# Linux/x86 6.12.0 Kernel Configuration\nCONFIG_X86_32=y\n", "kernel.config: was recorded on i386"),
    ("kernel.config", "#\n# Linux/x86 6.12.0 Kernel Configuration\nCONFIG_X86_64=y\n", ""),
    ("dmesg", "[    0.0] Linux version 6.12.0-21-arm64 (a@b) (gcc-12)\n", "dmesg: was recorded on arm64"),
    ("dmesg", "[    0.0] Linux version 6.12.0 (a@b) (aarch64-linux-gnu-gcc-12 (x) 12)\n", "dmesg: was recorded on aarch64"),
    ("dmesg", "[    0.0] Linux version 6.12.0-amd64 (a@b) (x86_64-linux-gnu-gcc-12 (x) 12)\n", ""),
    ("trace.txt", LINES % ("0x40", 16384, 4096), ""),  # a batch of a large folio
])
def test_other_machines_and_page_sizes_are_refused(name: str, data: str, said: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "trace.txt").write_text(LINES % ("0x0", 4096, 4096))
    (source / name).write_text(data)
    if not said:
        assert import_source(source, tmp_path / "rec")["rows"] == 3
        return
    with pytest.raises(BadInput) as problem:
        import_source(source, tmp_path / "rec")
    assert said in str(problem.value)
    assert not (tmp_path / "rec").exists()


@pytest.mark.parametrize(("release", "machine"), [
    ("6.12.0-21-arm64", "arm64"), ("7.3.4-200.fc45.aarch64", "aarch64"), ("6.12.0-arm64-16k", "arm64"), ("6.1.0-686-pae", "686"),
    ("6.12.117+deb13-cloud-amd64", ""), ("7.3.4-200.fc45.x86_64", ""), ("6.12.686", ""), ("7.3-rc7", "")])
def test_a_release_may_name_another_machine(release: str, machine: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(LINES % ("0x0", 4096, 4096))
    if not machine:
        assert import_source(path, tmp_path / "rec", overrides={"release": release})["rows"] == 3
        return
    with pytest.raises(BadInput, match=f"was recorded on {machine}, which is not modelled; record on x86-64"):
        import_source(path, tmp_path / "rec", overrides={"release": release})


def test_perf_s_head_may_name_another_machine(tmp_path: Path) -> None:
    path = tmp_path / "perf.txt"
    path.write_text("# ========\n# arch : aarch64\n#\na 1 [000] 1.000001: z:store: (ffff) folio=0x1\n")
    with pytest.raises(BadInput, match="perf's head: was recorded on aarch64"):
        import_source(path, tmp_path / "rec")
