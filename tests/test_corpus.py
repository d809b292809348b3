# SPDX-License-Identifier: GPL-2.0-or-later
"""Every nasty file of the corpus is refused in one sentence, or read with its damage counted."""

from __future__ import annotations

import importlib.util
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import ringbuilder as rb

from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.filetype import classify
from traces.recording import Recording

CORPUS = Path(__file__).resolve().parent / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir() if path.is_file() and path.suffix != ".py")
KINDS = {"tracedat", "text", "ring", "pageindex", "pages", "truth", "counters", "objects", "config", "dmesg", "probes",
         "symbols", "json", "empty", "unknown"}
TRACES = [name for name in FILES if name.startswith(("ring-", "dat-", "text-"))]
RECORDINGS = [name for name in FILES if name.startswith("rec-")]
SIDES = [name for name in FILES if name not in TRACES + RECORDINGS]
#: Traces that show no damage.
CLEAN = {"ring-good", "dat-good", "text-good"}


def check(problem: BadInput) -> None:
    text = str(problem)
    assert text.endswith(f"; {problem.todo}.")
    assert "Traceback" not in text
    assert "Error(" not in text
    assert not any(ord(letter) < 32 or ord(letter) == 127 for letter in text)
    assert len(text) < 3000


def damage_of(recording: Recording) -> list[str]:
    """What the recording itself says about what is missing from it; a ring's losses that were not counted are not damage."""
    said: list[str] = list(recording.manifest["notes"])
    for loss in recording.manifest["losses"]:
        reported = {key: value for key, value in loss.items() if key not in ("cpu", "buffer", "events", "file", "ignored_events",
                                                                         "counted")
                and (key, value) != ("first_damage_offset", -1)}
        if str(reported.get("why", "")).startswith("what CPU"):
            del reported["why"], reported["lost"]
        said += [f"{key}={value}" for key, value in reported.items() if value is None or value]
    return said


def attempt(source: Path, out: Path, **options: Any) -> Recording | None:
    """Import; None when that is refused as it should be."""
    try:
        import_source(source, out, **options)
    except BadInput as problem:
        check(problem)
        assert not out.exists()
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []
        return None
    recording = Recording(out)
    assert len(recording.frame()) == len(recording)
    return recording


def test_the_corpus_is_there() -> None:
    assert len(TRACES) > 50
    assert len(RECORDINGS) > 15
    assert len(SIDES) > 40
    assert all((CORPUS / name).stat().st_size < 4096 for name in FILES)


def test_the_script_makes_these_files() -> None:
    """All but the compressed ones, which another zstd or zlib may make otherwise."""
    spec = importlib.util.spec_from_file_location("make_corpus", CORPUS / "make_corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.corpus()
    assert sorted(made) == FILES
    assert [name for name in FILES if "zstd" not in name and "gzip" not in name
            and (CORPUS / name).read_bytes() != made[name]] == []


@pytest.mark.parametrize("name", FILES)
def test_classify_always_answers(name: str) -> None:
    try:
        assert classify(CORPUS / name) in KINDS
    except BadInput as problem:
        # A snapshot that no JSON reader would have to take.
        check(problem)
        assert name in ("counters-infinite", "counters-surrogate")


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    return rb.write_formats(tmp_path / "formats", 1024)


@pytest.mark.parametrize("name", TRACES)
def test_traces(tmp_path: Path, formats: Path, name: str) -> None:
    """As a file of its own: refused, or imported with the damage in the manifest."""
    recording = attempt(CORPUS / name, tmp_path / "rec", formats=formats)
    if name in CLEAN:
        assert recording is not None
        assert damage_of(recording) == []
    elif recording is not None and "bit-flips" not in name:
        assert damage_of(recording), name


#: Traces whose good part must come through, with the damage that must be reported.
KEPT = {
    "ring-cut-in-record": "tail_bytes=100", "ring-one-byte-short": "tail_bytes=1023",
    "ring-commit-too-long": "damaged_subbuffers=1", "ring-record-beyond-end": "damaged_subbuffers=1",
    "ring-length-word-huge": "first_damage_offset=1040", "ring-length-word-zero": "damaged_subbuffers=1",
    "ring-discard-beyond-end": "damaged_subbuffers=1", "ring-short-records": "short_records=2",
    "ring-unknown-ids": "unknown_events={'60000': 1}", "ring-lost": "lost=None", "ring-backwards": "backwards=1",
    "ring-gzip-cut": "cut_off=True", "dat-cut-in-data": "cut_off=True", "text-cut": "cut_off=True",
    "text-lost": "lost=7", "text-junk": "unparsed_lines=9", "text-no-newline": "cut_off=True",
    "text-number-too-large": "unparsed_lines=1",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_came_before_the_damage_is_kept(tmp_path: Path, name: str) -> None:
    """In a run directory, where the damaged file is one of two CPUs or the only trace."""
    run = tmp_path / "run"
    run.mkdir()
    rb.write_formats(run / "formats", 1024)
    shutil.copy(CORPUS / name, run / "x.cpu1")
    recording = attempt(run, tmp_path / "rec")
    if recording is None and name in ("text-no-newline", "ring-gzip-cut"):
        return  # nothing whole is left
    assert recording is not None
    assert len(recording) > 0
    assert KEPT[name] in damage_of(recording)


#: Side files that are odd, but of which nothing is left out.
WHOLE = {"dmesg-cut", "format-pid-far", "format-same-id", "index-head-only", "objects-good", "probes-odd", "truth-good", "truth-head-only"}


@pytest.mark.parametrize("name", SIDES)
def test_side_files(tmp_path: Path, name: str) -> None:
    """Beside a good ring: refused, or imported with all its events."""
    run = tmp_path / "run"
    run.mkdir()
    rb.write_formats(run / "formats", 1024, [name for name in rb.EVENTS if name != "load"])
    (run / "zmeta.cpu0").write_bytes(rb.ring([(rb.T0 + n, rb.EVENTS["store_ret"].pack(n)) for n in range(60)], 1024))
    if name.startswith(("format-", "header_page-")):
        shutil.copy(CORPUS / name, run / "formats" / ("header_page" if name.startswith("header") else name))
    else:
        shutil.copy(CORPUS / name, run / name)
    recording = attempt(run, tmp_path / "rec")
    if "-good" in name:
        assert recording is not None
    if recording is not None:
        # The ring has no compress call that a page could belong to.
        assert bool(damage_of(recording)) == (name not in WHOLE), damage_of(recording)
    if recording is not None and name != "header_page-odd":
        events = recording.frame(["event"])["event"]
        assert int((events == "zswap_store_ret").sum()) == 60


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("verify", [True, False])
def test_recordings(tmp_path: Path, name: str, verify: bool) -> None:
    path = tmp_path / "rec"
    path.mkdir()
    shutil.copy(CORPUS / name, path / "manifest.json")
    if name == "rec-good":
        assert len(Recording(path, verify=verify)) == 0
        return
    try:
        recording = Recording(path, verify=verify)
        recording.frame()
        [recording.snapshot(number) for number in range(len(recording.snapshots))]
    except BadInput as problem:
        check(problem)
        return
    # Only what a digest would have shown may open without one.
    assert not verify
    assert name in ("rec-file-long", "rec-file-escape")


def test_a_bomb_is_not_unpacked_into_memory(tmp_path: Path, formats: Path) -> None:
    """100 MiB of zeros: no more is held than a chunk of them."""
    tracemalloc.start()
    try:
        assert attempt(CORPUS / "ring-zstd-bomb", tmp_path / "rec", formats=formats) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
