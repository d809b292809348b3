# SPDX-License-Identifier: GPL-2.0-or-later
"""Malicious recordings and captures: their digests are right, and their content is not."""

from __future__ import annotations

import copy
import json
import lzma
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import hypothesis.strategies as st
import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings

import replay
from replay.cli import main
from replay.cli.escaping import escaping
from tests.damaging import edit, replace
from traces import jsontext, thrift
from traces.errors import BadInput
from traces.importers.inputfile import read_all
from traces.importers.pagefiles import read_objects, read_page_index
from traces.importers.runfacts import read_truth
from traces.leftovers import SUFFIX, scratch, sweep, write_whole
from traces.pages import PageStore
from traces.printable import escaped
from traces.recording import Recording, RecordingWriter

SAMPLES = Path(__file__).parent.parent / "traces" / "samples"
SMALL = SAMPLES / "7.2-lz4-numa2"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return shutil.copytree(SMALL, tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))


#: Next to a text that says nothing of its run.
FACTS = ("--kernel", "7.3.0", "--compressor", "lz4", "--totalram-pages", "504108")
TRACE = """\
       task-1     [000] ...2.     1.000001: store: (zswap_store+0x4/0xcd0) folio=0xffffea00003c1c00 fl=0xfffffc0030409 swp=0x1 fl1=0x2c
       task-1     [000] ...1.     1.000002: store_ret: (swap_writeout+0x4/0x370 <- zswap_store) ret=0
"""


@pytest.fixture
def samples_text(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.txt"
    path.write_text("# tracer: nop\n#\n" + TRACE)
    return path


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


# ---- manifests and snapshots -------------------------------------------------------------------------------------


def documents() -> list[tuple[str, Any]]:
    return [(name, json.loads(path.read_text())) for sample in sorted(SAMPLES.glob("*/manifest.json"))
            for name, paths in (("manifest", [sample]), ("snapshot", sorted(sample.parent.glob("counters/*.json"))),
                                ("state", sorted(sample.parent.glob("state.json"))))
            for path in paths]


def test_the_schema_is_one_and_every_sample_fits_it() -> None:
    schema = json.loads(jsontext.SCHEMA.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    found = documents()
    assert {name for name, _ in found} == {"manifest", "snapshot", "state"}
    for name, value in found:
        jsontext.hold_to_schema(value, name, "x", "y")
        jsonschema.Draft7Validator({**schema, "oneOf": [{"$ref": f"#/definitions/{name}"}]}).validate(value)


#: JSON texts of values that almost no key can have; numbers that Python cannot write as JSON are texts.
HOSTILE = ["[]", "{}", '"x"', "null", "-1", "1.5", "true", "1e400", "-1e400", "1e300", "NaN", "Infinity", "9" * 5000,
           "18446744073709551616", "-9223372036854775809", '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', "[" * 40 + "]" * 40,
           "[[[]]]", '{"x": {"x": []}}', '{"\\ud800": 1}', '""', '[null]', '"' + "9" * 5000 + '"']


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of values in a document, without the document itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def mutated(value: Any, at: tuple[Any, ...], text: str) -> str:
    """Return a document as JSON, with ``text`` where ``at`` is."""
    value = copy.deepcopy(value)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = "@here@"
    return json.dumps(value).replace('"@here@"', text)


MANIFEST = json.loads((SMALL / "manifest.json").read_text())
COUNTERS = sorted(path.name for path in (SMALL / "counters").iterdir())
#: Keys whose values only readers look at, and one of each long list.
MANIFEST_PLACES = [at for at in places(MANIFEST) if at[0] not in ("files",) or len(at) < 3]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.sampled_from(MANIFEST_PLACES), text=st.sampled_from(HOSTILE), verb=st.sampled_from(["info", "replay", "regress"]))
def test_any_manifest_is_a_verdict_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str],
                                                 at: tuple[Any, ...], text: str, verb: str) -> None:
    path = shutil.copytree(SMALL, tmp_path_factory.mktemp("m") / "rec", ignore=shutil.ignore_patterns("cache"))
    (path / "manifest.json").write_text(mutated(MANIFEST, at, text))
    check_run(capsys, verb, path)
    shutil.rmtree(path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), name=st.sampled_from(COUNTERS), text=st.sampled_from(HOSTILE),
       verb=st.sampled_from(["info", "replay", "regress"]))
def test_any_snapshot_is_a_verdict_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str],
                                                 data: st.DataObject, name: str, text: str, verb: str) -> None:
    path = shutil.copytree(SMALL, tmp_path_factory.mktemp("s") / "rec", ignore=shutil.ignore_patterns("cache"))
    values = json.loads((path / "counters" / name).read_text())
    at = data.draw(st.sampled_from([at for at in places(values) if at[0] not in ("vmstat",) or at[-1].startswith("z")]))
    replace(path, f"counters/{name}", mutated(values, at, text).encode())
    check_run(capsys, verb, path)
    shutil.rmtree(path)


STATE = json.loads((SMALL / "state.json").read_text())
#: Of long lists the beginning: rows are alike.
STATE_PLACES = [at for at in places(STATE) if all(not isinstance(key, int) or key < 3 for key in at)]
#: The key that is optional: states of earlier versions lack it.
FREE_TO_GO = "memcg_of"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.sampled_from(STATE_PLACES), text=st.sampled_from(HOSTILE),
       verb=st.sampled_from(["replay", "regress", "cut", "scrub", "export"]))
def test_any_state_is_a_verdict_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str],
                                              at: tuple[Any, ...], text: str, verb: str) -> None:
    path = shutil.copytree(SMALL, tmp_path_factory.mktemp("t") / "rec", ignore=shutil.ignore_patterns("cache"))
    replace(path, "state.json", mutated(STATE, at, text).encode())
    if verb in ("replay", "regress"):
        status = run("regress", "--base", path, "--patched", SMALL) if verb == "regress" else run("replay", path)
    else:
        more = {"cut": ["--from", "0", "--to", "40", "-o", path.parent / "out"], "scrub": ["-o", path.parent / "out"],
                "export": ["-o", path.parent / "out.json"]}[verb]
        status = run(verb, path, *more)
    said = capsys.readouterr()
    # A state whose numbers differ from the kernel's may well FAIL: it is one of another kernel.
    assert status in (0, 1, 2, 3, 4), said
    assert "Traceback" not in said.err
    assert "\x1b" not in said.out + said.err
    if status == 2 and not said.out:
        assert said.err.count("\n") == 1
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("at", [at for at in STATE_PLACES if len(at) < 3 or at[0] == "entries"][::3], ids=str)
@pytest.mark.parametrize("text", ["{}", '"x"', "1.5", "[[[]]]"])
def test_a_state_of_other_types_is_refused_at_its_key(sample: Path, at: tuple[Any, ...], text: str) -> None:
    if (text == '"x"' and at in {("phase",), ("pools", 0, "tfm_name")}) or (text == "{}" and isinstance(_at(STATE, at), dict)):
        pytest.skip("a value that may be there")
    replace(sample, "state.json", mutated(STATE, at, text).encode())
    with pytest.raises(BadInput, match=r"state\.json") as found:
        Recording(sample).document("state")
    assert f"key '{'.'.join(map(str, at))}" in found.value.where


@pytest.mark.parametrize("key", sorted(STATE))
def test_a_state_without_a_key_is_refused(sample: Path, key: str) -> None:
    replace(sample, "state.json", json.dumps({name: value for name, value in STATE.items() if name != key}).encode())
    if key == FREE_TO_GO:
        assert Recording(sample).document("state")
    else:
        with pytest.raises(BadInput, match=f"does not say {key}"):
            Recording(sample).document("state")


def _at(value: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        value = value[key]
    return value


def check_run(capsys: pytest.CaptureFixture[str], verb: str, path: Path) -> None:
    """Run a verb on a recording that does not say what it should: no traceback, no FAIL, no bare control character."""
    status = run(verb, "--base", path, "--patched", SMALL) if verb == "regress" else run(verb, path)
    said = capsys.readouterr()
    assert status in (0, 2, 3, 4), said
    assert "Traceback" not in said.err
    assert "\x1b" not in said.out + said.err
    if status == 2 and not said.out:
        assert said.err.startswith("zreplay: ")
        assert said.err.count("\n") == 1


@pytest.mark.parametrize("text", ["1e400", "9" * 5000, '"\\ud800"', "NaN", "[" * 100000])
def test_json_that_no_manifest_has(sample: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (sample / "manifest.json").write_text(mutated(MANIFEST, ("notes",), f"[{text}]" if text[0] != "[" else text))
    assert run("replay", sample) == 2
    assert "is not readable JSON (it " in capsys.readouterr().err


@settings(max_examples=300, deadline=None)
@given(at=st.sampled_from(MANIFEST_PLACES), text=st.sampled_from(HOSTILE))
def test_both_validators_agree(at: tuple[Any, ...], text: str) -> None:
    try:
        value = jsontext.parse(mutated(MANIFEST, at, text).encode())
    except ValueError:
        return
    schema = json.loads(jsontext.SCHEMA.read_text())
    other = jsonschema.Draft7Validator({**schema, "oneOf": [{"$ref": "#/definitions/manifest"}]})
    try:
        jsontext.hold_to_schema(value, "manifest", "x", "y")
        ours = True
    except BadInput:
        ours = False
    assert other.is_valid(value) == ours


def test_the_library_says_what_a_message_needs() -> None:
    with pytest.raises(fastjsonschema.JsonSchemaValueException) as found:
        jsontext._checker("manifest")({**MANIFEST, "rows": []})
    assert (found.value.rule, found.value.rule_definition, found.value.path) == ("type", "integer", ["data", "rows"])


# ---- kinds of files ----------------------------------------------------------------------------------------------


def make(path: Path, kind: str, outside: Path) -> None:
    path.unlink()
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as end:
            here = os.getcwd()
            os.chdir(path.parent)
            end.bind(path.name)
            os.chdir(here)
    else:
        path.symlink_to({"a link to a device": Path("/dev/zero"), "a link out": outside}.get(kind, path.parent / "fifo"))
        if kind == "a link to a FIFO":
            os.mkfifo(path.parent / "fifo")


KINDS = ["a FIFO", "a socket", "a link to a device", "a link to a FIFO", "a link out"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["manifest.json", "events/00000.parquet", "counters/000.json", "pages/pages.parquet",
                                  "pages/refs.parquet", "truth.parquet", "state.json"])
def test_only_regular_files_of_a_recording_are_opened(sample: Path, capsys: pytest.CaptureFixture[str], kind: str,
                                                      name: str) -> None:
    outside = sample.parent / "outside"
    shutil.copy(sample / name, outside)
    make(sample / name, kind, outside)
    for words in (("replay", sample), ("replay", sample, SMALL), ("info", sample), ("dev", "compare", sample, SMALL)):
        status = run(*words)
        said = capsys.readouterr()
        assert status == 2
        expected = "this is not a recording" if name == "manifest.json" and kind not in ("a link out",) \
            else "not a regular file of the directory"
        assert expected in said.err, said


def test_unverified_recordings_open_no_other_files_either(sample: Path) -> None:
    recording = Recording(sample, verify=False)
    for name in recording.manifest["files"]:
        make(sample / name, "a FIFO", sample)
    for read in (lambda: list(recording.batches(["ts"])), lambda: recording.snapshot(0), lambda: PageStore(sample / "pages")):
        with pytest.raises(BadInput, match="is a FIFO, not a regular file of the directory"):
            read()
    assert (recording.table("truth"), recording.document("state"), recording.pages) == (None, None, None)


def test_a_folder_of_a_recording_is_no_link(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sample / "events").rename(sample.parent / "elsewhere")
    (sample / "events").symlink_to(sample.parent / "elsewhere")
    assert run("replay", sample) == 2
    assert "lies in events, which is a symbolic link" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_of_a_capture_are_opened(samples_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    kind: str) -> None:
    """In a directory of traces anything but a file is left out and named; a recorder's own capture is refused with it."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(samples_text, source / "trace.txt")
    (source / "zz").write_text("x")
    outside = shutil.copy(samples_text, tmp_path / "outside.txt")
    make(source / "zz", kind, Path(outside))
    assert run("import", source, "-o", tmp_path / "rec", *FACTS) == 0
    notes = Recording(tmp_path / "rec").manifest["notes"]
    assert [note for note in notes if "zz was not used: it is a" in note and "only regular files" in note]
    capsys.readouterr()

    (source / "trace.txt").unlink()
    assert run("import", source, "-o", tmp_path / "none") == 2
    assert "holds no trace that zreplay can import" in capsys.readouterr().err

    (source / "capture.json").write_text(json.dumps({"zreplay_capture": 1, "complete": False, "losses": {}, "bases": {},
                                                     "plan": [], "notes": [], "start": None}))
    (source / "zz").rename(source / "counters-000-start.json")
    assert run("import", source, "-o", tmp_path / "none") == 2
    assert "not a regular file of the directory" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a link to a device", "a link to a FIFO"])
def test_what_is_imported_is_a_regular_file(samples_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            kind: str) -> None:
    source = Path(shutil.copy(samples_text, tmp_path / "trace.txt"))
    make(source, kind, source)
    assert run("import", source, "-o", tmp_path / "rec") == 2
    said = capsys.readouterr().err
    assert "not a regular file" in said or "No such device or address" in said
    assert not (tmp_path / "rec").exists()


def test_what_is_imported_may_be_a_link_to_a_file(samples_text: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.txt").symlink_to(samples_text.resolve())
    assert run("import", tmp_path / "trace.txt", "-o", tmp_path / "rec", *FACTS) == 0


# ---- memory ------------------------------------------------------------------------------------------------------

#: What a reader may take for a file of some kilobytes, MiB: far from a gigabyte.
MOST = 600
STORE = pa.schema([pa.field("sha1", pa.string(), nullable=False), pa.field("data", pa.binary())])
REFS = pa.schema([pa.field("page", pa.int32(), nullable=False)])


def store(rows: int) -> pa.Table:
    return pa.table([pa.repeat(pa.scalar("0" * 40), rows), pa.repeat(pa.scalar(b"\0" * 4096), rows)], schema=STORE)


@pytest.mark.parametrize(("name", "table", "dictionary"), [
    ("pages/pages.parquet", lambda: store(70000), False),
    ("pages/pages.parquet", lambda: store(70000), True),
    ("pages/refs.parquet", lambda: pa.table([pa.repeat(pa.scalar(0, pa.int32()), 1 << 26)], schema=REFS), True),
], ids=["pages", "pages of a dictionary", "references"])
def test_a_page_store_of_kilobytes_stays_small(sample: Path, name: str, table: Callable[[], pa.Table],
                                               dictionary: bool) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table(), sink, compression="zstd", use_dictionary=dictionary)
    data = sink.getvalue().to_pybytes()
    assert len(data) < 1_000_000
    replace(sample, name, data)
    before = pa.total_allocated_bytes()
    with pytest.raises(BadInput, match=r"would take .* MiB of memory|says that it unpacks"):
        _ = Recording(sample).pages
    assert pa.total_allocated_bytes() - before < 16 << 20


@pytest.mark.parametrize("what", ["many rows", "one long text", "a long text many times", "prefixes"])
def test_a_table_of_kilobytes_stays_small(sample: Path, what: str) -> None:
    many = 1 << 21
    column = {"many rows": lambda: pa.repeat(pa.scalar(0, pa.int64()), 8 * many),
              "one long text": lambda: pa.array(["x" * (200 << 20)]),
              "a long text many times": lambda: pa.array(["x" * 1000] * (many // 8)),
              "prefixes": lambda: pa.array(["x" * 100 + str(n) for n in range(1000)])}[what]()
    sink = pa.BufferOutputStream()
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"phase": "DELTA_BYTE_ARRAY"}} \
        if what == "prefixes" else {"use_dictionary": what != "one long text"}
    pq.write_table(pa.table({"phase": column}), sink, compression="zstd", **options)
    data = sink.getvalue().to_pybytes()
    assert len(data) < 1_000_000
    replace(sample, "truth.parquet", data)
    del column
    with pytest.raises(BadInput, match=r"would take .* MiB of memory|does not show how long"):
        Recording(sample).table("truth")


def test_sizes_are_those_of_the_pages_not_of_the_metadata(sample: Path) -> None:
    """A header that says two gigabytes, where the metadata is honest about some bytes."""
    table = pa.table({"phase": pa.array([7] * 100, pa.int64())})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_statistics=False)
    data = bytearray(sink.getvalue().to_pybytes())
    head, end = thrift.struct(bytes(data[4:]))
    assert head[2] == 800 or head[2] > 700
    # 15: type; 15: its zigzag varint.  As many bytes as before, and then the rest.
    old = bytes(data[4:4 + end])
    grown = old.replace(varint(head[2] << 1), varint((1 << 31) - 2), 1)
    replace(sample, "truth.parquet", bytes(data[:4]) + grown + bytes(data[4 + end:]))
    with pytest.raises(BadInput, match=r"cannot be read|would take"):
        Recording(sample).table("truth")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def packed(path: Path, begin: bytes, again: bytes, times: int) -> Path:
    """Write zstd of ``begin`` and many times ``again``: some kilobytes."""
    with zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=19)) as out:
        out.write(begin)
        for _ in range(times >> 10):
            out.write(again * 1024)
    assert path.stat().st_size < 300_000
    return path


@pytest.mark.parametrize(("read", "begin", "again"), [
    (read_truth, b"phase,page,kind,sha1,swap_type,swap_offset\n", b",,,,0,0\n"),
    (read_truth, b"phase,page,kind,sha1,swap_type,swap_offset\n", b"\n"),
    (lambda path: read_page_index(path, None, None), b"n,ts_ns,src,sha1\n", b"\n"),
    (lambda path: read_page_index(path, None, None), b"n,ts_ns,src,sha1\n", b","),
    (read_objects, b"", (0xFFFF << 48).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"x"),
    (read_all, b"", b"\0"),
], ids=["truth", "truth of empty lines", "index of empty lines", "index of one line", "objects", "anything"])
def test_side_files_of_kilobytes_stay_small(tmp_path: Path, read: Callable[[Path], object], begin: bytes, again: bytes) -> None:
    path = packed(tmp_path / "file.zst", begin, again, (256 << 20) // len(again))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak >> 20 < MOST


def test_a_dump_of_kilobytes_stays_small(tmp_path: Path) -> None:
    index = tmp_path / "pages.idx"
    index.write_text("n,ts_ns,src,sha1\n" + "".join(f"{n},1,0,{'0' * 40}\n" for n in range(40000)))
    dump = packed(tmp_path / "pages.bin.zst", b"", b"\0" * 4096, 40000)
    with pytest.raises(BadInput, match=r"bytes unpack to more than \d+ MiB; decompress it yourself"):
        read_page_index(index, dump, None)
    del dump


def test_json_of_kilobytes_stays_small(tmp_path: Path) -> None:
    (tmp_path / "counters.json.xz").write_bytes(lzma.compress(b'{"t": [' + b"[]," * (8 << 20) + b"0]}"))
    with pytest.raises(ValueError, match="more values than any real one"):
        jsontext.parse(read_all(tmp_path / "counters.json.xz"))


def test_a_store_says_what_the_manifest_says(sample: Path) -> None:
    edit(sample, lambda m: m["pages"].update(references=m["pages"]["references"] + 1))
    with pytest.raises(BadInput, match="references where the manifest says"):
        _ = Recording(sample).pages


# ---- terminals ---------------------------------------------------------------------------------------------------

#: What a terminal obeys, or shows as something else: an escape sequence, its one-byte form, a title, a carriage return,
#: text from right to left, half a surrogate pair.
OBEYED = "\x1b[2J\x9b1m\x1b]0;x\x07\rPASS\u202eSSAP\x08\x7f"
UNSHOWN = set(OBEYED) - set(" []0123456789;xJmPAS")


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    text = said.out + said.err
    assert not UNSHOWN & set(text), text
    return text


@pytest.mark.parametrize("words", [("info",), ("replay",), ("replay", "--mail"), ("replay", "--keep-going"), ("show", "--limit", "9"), ("replay", "--ktap"), ("replay", "--json"), ("dev", "compare", SMALL),
                                   ("regress", "--patched", SMALL, "--base"), ("report", "-o", "OUT")])
def test_no_verb_prints_what_a_terminal_obeys(sample: Path, capsys: pytest.CaptureFixture[str], words: tuple[str | Path, ...]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["tasks"] = {str(pid): OBEYED for pid in range(400)}
        manifest["kernel"].update(release=f"7.2.13{OBEYED}\nPASS", cpu_model=OBEYED, origin=OBEYED)
        manifest["notes"].append(f"a note{OBEYED}\nPASS  all of it")
        manifest["losses"][0].update(lost=1, why=OBEYED)
        manifest["source"]["path"] = OBEYED
        manifest["snapshots"][0]["label"] = OBEYED
        manifest["config"]["params"][OBEYED] = OBEYED

    edit(sample, change)
    given_words = [sample.parent / "page.html" if word == "OUT" else word for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sample.parent)
        assert run(*given_words, sample) in (0, 2, 3)
    text = shown(capsys)
    assert not [line for line in text.splitlines() if line.startswith("PASS  all")]


def test_bad_lines_and_names_are_shown_not_obeyed(samples_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "trace.txt"
    source.write_bytes(samples_text.read_bytes().replace(b"task-1", OBEYED.replace("\r", "").encode("utf-8") + b"-1")
                       + b"  bad \x1b[31m line\n" + OBEYED.encode() + b"\n")
    run("import", source, "-o", tmp_path / "rec", *FACTS)
    shown(capsys)
    if (tmp_path / "rec").exists():
        run("info", tmp_path / "rec")
        shown(capsys)
    assert run("replay", tmp_path / f"no{OBEYED}") == 2
    assert shown(capsys)
    with pytest.raises(SystemExit):
        run(f"{OBEYED}")
    assert "\\x1b[2J" in shown(capsys)


def test_colours_of_verdicts_are_kept_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    with escaping():
        print("\033[1;32mPASS\033[0m \033[1;32mPASS it is\033[0m \033[31m x\ty")
    assert capsys.readouterr().out == "\033[1;32mPASS\033[0m \\x1b[1;32mPASS it is\\x1b[0m \\x1b[31m x\ty\n"


@given(text=st.text(st.characters(), max_size=40))
def test_what_is_escaped_is_shown_as_it_is_otherwise(text: str) -> None:
    done = escaped(text)
    done.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", done)
    assert escaped(done) == done
    if text.isprintable():
        assert done == text


# ---- what is kept, and what is left over -------------------------------------------------------------------------


def verdict(path: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replay.verdict.run.FAST_PAYS", 0)
        return replay.replay(Recording(path)).verdict


def test_a_changed_page_beside_kept_results_is_found(tmp_path: Path) -> None:
    path = shutil.copytree(SAMPLES / "7.3-lz4-limits", tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))
    assert verdict(path) == "PASS"
    assert list((path / "cache").iterdir())
    table = pq.read_table(path / "pages/pages.parquet")
    data = table.column("data").to_pylist()
    data[3] = bytes(4096)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([table.column("sha1"), pa.array(data, pa.binary())], schema=table.schema), sink)
    replace(path, "pages/pages.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(BadInput, match="page 3: its bytes do not match its SHA-1"):
        verdict(path)


def test_results_that_somebody_else_kept_are_not_believed(tmp_path: Path) -> None:
    path = shutil.copytree(SAMPLES / "7.3-lz4-limits", tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
        assert verdict(path) == "PASS"
    (kept,) = (path / "cache").iterdir()
    assert stat.S_IMODE((tmp_path / "theirs/zreplay/key").stat().st_mode) == 0o600
    table = pq.read_table(kept)
    meta = table.schema.metadata
    for changed in (table, table.set_column(1, "dlen", pa.array(np.full(len(table), 77, np.int32)))):
        pq.write_table(changed.replace_schema_metadata(meta), kept)
        recording = Recording(path)
        result = replay.replay(recording)
        assert result.verdict == "PASS"
        assert any("0 results kept" in note for note in result.notes), result.notes


@pytest.mark.parametrize("what", ["the directory", "the file"])
def test_a_cache_that_is_a_link_is_not_followed(tmp_path: Path, what: str) -> None:
    path = shutil.copytree(SAMPLES / "7.3-lz4-limits", tmp_path / "rec", ignore=shutil.ignore_patterns("cache"))
    outside = tmp_path / "outside"
    assert verdict(path) == "PASS"
    (kept,) = (path / "cache").iterdir()
    if what == "the directory":
        (path / "cache").rename(outside)
        shutil.rmtree(outside)
        outside.mkdir()
        (path / "cache").symlink_to(outside)
    else:
        kept.rename(outside)
        outside.write_text("theirs")
        kept.symlink_to(outside)
    assert verdict(path) == "PASS"
    assert list(outside.iterdir()) == [] if outside.is_dir() else outside.read_text() == "theirs"


KILLED = """
import os, signal, sys
from pathlib import Path
from traces.recording import RecordingWriter
from traces.leftovers import Unfinished
writer = RecordingWriter(sys.argv[1] + "/rec")
writer.pages.add(b"secret!!" * 512)
held = Unfinished(Path(sys.argv[1], "x.json"))
held.path.write_text("secret!!")
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("words", [("info", "own"), ("export", "own", "-o", "x.json"), ("cut", "own", "--from", "0", "--to", "9", "-o", "c"),
                                   ("scrub", "own", "-o", "s")])
def test_what_was_killed_leaves_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                 words: tuple[str, ...]) -> None:
    shutil.copytree(SMALL, tmp_path / "own", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(SAMPLES.parents[1])}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))
        assert len(left) == 2
        # A directory whose owner still works on it stays.
        assert sweep(tmp_path) == []
        process.kill()
        process.wait()
    (tmp_path / f".mine{SUFFIX}x").write_text("mine")
    (tmp_path / f".link{SUFFIX}").symlink_to(tmp_path / "own")
    run(*words)
    assert not [name for name in left if (tmp_path / name).exists()]
    assert all(f"removed {tmp_path / name}, which" in capsys.readouterr().err for name in left[:1])
    assert (tmp_path / f".mine{SUFFIX}x").exists()
    assert (tmp_path / "own" / "manifest.json").exists()


@pytest.mark.parametrize("words", [("replay", "own", "--table", "there/t.json"), ("replay", "own", "--junit", "there/t.xml"),
                                   ("report", "own", "-o", "own.html", "--figures", "there"), ("report", "own", "-o", "there/own.html")])
def test_what_was_killed_is_swept_where_tables_and_pictures_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               words: tuple[str, ...]) -> None:
    shutil.copytree(SMALL, tmp_path / "own", ignore=shutil.ignore_patterns("cache"))
    (tmp_path / "there").mkdir()
    left = tmp_path / "there" / f".t.json.00000000{SUFFIX}"
    left.write_text("{")
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 0
    assert not left.exists()
    made = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert made
    mask = os.umask(0o077)
    os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o666 & ~mask}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").write_text("before")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "t", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert (tmp_path / "t").read_text() == "before"


def test_scratch_goes_with_its_block(tmp_path: Path) -> None:
    with scratch(tmp_path / "run.zr") as place:
        (place / "disk").write_text("pages")
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert sweep(tmp_path) == [], "its owner is at work"
    assert list(tmp_path.iterdir()) == []


def test_an_import_that_goes_wrong_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RecordingWriter(tmp_path / "rec"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
