# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold whatever the code under test does: looked at in every replay, also of a revision that is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tampering import Tampered

import replay
import traces
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.revisions.mainline_7 import Mainline73
from replay.tools.cut import cut
from replay.tools.synthetic import ImaginaryKernel
from traces import schema

LZ4 = compressor_for("lz4", "mainline-7.0")


def exactly_a_page(seed: int, name: str = "lz4") -> bytes:
    """A page that lz4, lzo or lzo-rle compresses to just 4096 bytes: noise with a few bytes in it twice (L1)."""
    again = {"lz4": 21, "lzo": 86, "lzo-rle": 88}[name]
    page = bytearray(known.noise(seed))
    page[2048:2048 + again] = page[64:64 + again]
    result = compressor_for(name, "mainline-7.0").compress(bytes(page))
    assert (result.err, result.dlen) == (0, schema.PAGE_SIZE)
    return bytes(page)


#: three that give 4096 bytes, one that does not compress at all, the others do
PAGES = [b"swap entry " * 372 + bytes(4), exactly_a_page(1), known.noise(77), exactly_a_page(2), bytes(range(256)) * 16,
         exactly_a_page(3)]
WRONG = [1, 3, 5]


def recorded(path: Path, revision: str = "v14", pages: list[bytes] | None = None, *, order: int = 0,
             digests: bool = False, truth: bool = False, name: str = "lz4") -> Any:
    """A kernel that does what a revision says: every page stored and read back, in order."""
    pages = PAGES if pages is None else pages
    kernel = ImaginaryKernel(revision, pages=pages, compressor=compressor_for(name, "mainline-7.0"))
    texts = [kernel.mark("phase out")]
    for slot in range(0, len(pages), 1 << order):
        kernel.store(slot, order)
    texts.append(kernel.mark("phase in"))
    for slot in range(len(pages)):
        kernel.load(slot)
    rows = pd.DataFrame([("out", slot, "page", hashlib.sha1(page).hexdigest(), 0, slot)
                         for slot, page in enumerate(pages)],
                        columns=["phase", "page", "kind", "sha1", "swap_type", "swap_offset"])
    kernel.write(path, texts, digests=digests, truth=rows if truth else None)
    return traces.open_recording(path)


def counts(result: replay.Result, check: str) -> tuple[int, int]:
    found = next(c for c in result.checks if c.id == check)
    return found.compared, found.different


@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize("pages", ["bytes", "digests", "left out"])
def test_a_kernel_that_corrupts_as_posted_fails_at_the_first_wrong_load(tmp_path: Path, pages: str, truth: bool) -> None:
    recording = recorded(tmp_path / "r", digests=pages == "digests", truth=truth)
    result = replay.replay(recording, "v14", pages=pages != "left out")
    assert result.verdict == "FAIL"
    first = result.divergences[0]
    assert first.check == "invariant.load"
    assert first.path[0][0] == "zswap_load"
    loads = [number for number, name in enumerate(recording.frame(["event"])["event"]) if name == "zswap_load"]
    assert first.path[0][1] == loads[WRONG[0]]
    assert "its object holds compressed data of 4096 bytes" in first.what
    assert "taken for the page itself" in first.what
    assert "the kernel does what v14 says here, and v14 is wrong" in first.what
    assert ("its first bytes are not the page's" in first.what) == (pages == "bytes")
    every = replay.replay(recording, "v14", pages=pages != "left out", keep_going=True)
    assert counts(every, "invariant.load") == (len(PAGES), len(WRONG))
    assert {d.check for d in every.divergences} == {"invariant.load"}


@pytest.mark.parametrize("name", ["lzo", "lzo-rle"])
@pytest.mark.parametrize("revision", ["v12", "v14", "v14-on-7.3"])
def test_every_compressor_that_can_give_a_page_is_found_out(tmp_path: Path, revision: str, name: str) -> None:
    pages = [b"swap entry " * 372 + bytes(4), exactly_a_page(7, name)]
    result = replay.replay(recorded(tmp_path / "r", revision, pages, name=name), revision)
    assert [(d.check, d.path[0][0]) for d in result.divergences] == [("invariant.load", "zswap_load")]
    assert f"the kernel does what {revision} says here, and {revision} is wrong" in result.divergences[0].what


@pytest.mark.parametrize("revision", ["mainline-6.12", "mainline-6.18", "mainline-7.0", "mainline-7.3", "v6", "v8", "v12-22",
                                      "v12-meant", "v14-25", "v14-meant"])
def test_who_reads_back_what_was_stored_passes(tmp_path: Path, revision: str) -> None:
    """The same pages: kept as they are, rejected, or (6.12, v8) decompressed although they have a page's length."""
    result = replay.replay(recorded(tmp_path / "r", revision), revision)
    assert (result.verdict, result.divergences) == ("PASS", [])
    stored = len(PAGES) - (revision in ("mainline-6.12", "v6", "v8"))
    assert counts(result, "invariant.load") == (stored, 0)
    assert counts(result, "invariant.length") == (stored, 0)
    assert counts(result, "invariant.handle")[0] >= 3 * stored
    assert counts(result, "invariant.balance") == (6, 0)


def test_a_writeback_is_a_read_as_well(tmp_path: Path) -> None:
    kernel = ImaginaryKernel("v14", pages=PAGES, compressor=LZ4)
    for slot in range(len(PAGES)):
        kernel.store(slot)
    for _ in range(2 * len(PAGES)):
        # First each loses its referenced bit, then one after the other goes to the device.
        kernel.do(kernel.model.shrink_memcg(None))
    kernel.write(tmp_path / "r")
    result = replay.replay(traces.open_recording(tmp_path / "r"), "v14", keep_going=True)
    assert counts(result, "invariant.load") == (len(PAGES), len(WRONG))
    assert {d.path[0][0] for d in result.divergences} == {"shrink_memcg"}


def tampered(recording: Any, name: str, number: int, **values: int) -> Tampered:
    """The recording with columns of one of its events changed."""
    changed = Tampered(recording.path)
    rows = np.flatnonzero(changed.columns["event"] == schema.CODE[name])
    for column, value in values.items():
        changed.columns[column][rows[number]] = value
    return changed


def test_a_kernel_that_leaves_the_revision_is_told_so_first(tmp_path: Path) -> None:
    """v14 says that the compressed bytes are written; a kernel that writes others has left it."""
    changed = tampered(recorded(tmp_path / "r"), "zs_obj_write", 1, data=0x1234)
    result = replay.replay(changed, "v14", keep_going=True)
    assert result.divergences[0].check == "store.bytes"
    assert result.divergences[1].check == "invariant.load"
    assert f"had left v14 before, at event {result.divergences[0].event}" in result.divergences[1].what


def test_a_length_that_nobody_wrote(tmp_path: Path) -> None:
    """v14 asks for an object of no bytes where a compressor says that it needed none (L5)."""
    kernel = ImaginaryKernel("v14", lambda slot: 0 if slot == 1 else 500)
    kernel.store(0)
    kernel.store(1)
    kernel.write(tmp_path / "r")
    first = replay.replay(traces.open_recording(tmp_path / "r"), "v14").divergences[0]
    assert (first.check, first.name, first.recorded) == ("invariant.length", "zs_malloc", 0)
    assert "the compress call returned 0, and 0 as length; the kernel does what v14 says" in first.what


def test_a_stale_length_is_known_by_the_bytes_it_keeps(tmp_path: Path) -> None:
    """The call fails before it writes a length: what the buffer held is kept as a page (L3)."""
    recording = recorded(tmp_path / "r", pages=[PAGES[0], known.noise(77), PAGES[4]])
    assert replay.replay(recording, "v14").verdict == "PASS"
    changed = tampered(recording, "zs_obj_write", 1, data=0x0123456789ABCDEF)
    first = replay.replay(changed, "v14").divergences[0]
    assert (first.check, first.path[0][0]) == ("invariant.load", "zswap_load")
    assert "what the compressor's buffer held before (the call failed with -22" in first.what
    # Who keeps the page where a call fails has left it when other bytes are written.
    assert replay.replay(changed, "v14-meant").divergences[0].check == "store.raw"


def test_handles_are_followed_by_what_was_recorded_of_them(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "r", "mainline-7.3", [PAGES[0]] * 3)
    given = Tampered(recording.path)
    frees = np.flatnonzero(given.columns["event"] == schema.CODE["zs_free"])
    other = int(given.columns["handle"][frees[2]])
    result = replay.replay(tampered(recording, "zs_free", 0, handle=other ^ 4), "mainline-7.3", keep_going=True)
    assert "free of a handle that is not live" in {d.check: d.what for d in result.divergences}["invariant.handle"]
    # The second object gets the first one's handle, while that is live.
    changed = Tampered(recording.path)
    for name in ("obj_malloc", "obj_malloc_ret", "zs_malloc_ret", "zs_obj_write"):
        rows = np.flatnonzero(changed.columns["event"] == schema.CODE[name])
        changed.columns["handle"][rows[1]] = changed.columns["handle"][rows[0]]
    result = replay.replay(changed, "mainline-7.3", keep_going=True)
    assert "a live handle is given out once more" in next(
        d.what for d in result.divergences if d.check == "invariant.handle")


def test_what_is_leaked_shows_at_the_end(tmp_path: Path) -> None:
    class Leaks(Mainline73):
        def zswap_entry_cache_free(self, entry: Any) -> None:
            """Forget to give it back."""

    recording = recorded(tmp_path / "r", "mainline-7.3")
    result = replay.replay(recording, Leaks)
    assert [d.check for d in result.divergences] == ["invariant.balance"]
    assert result.divergences[0].event == len(recording) - 1
    assert "6 zswap entries are allocated, the trees hold 0; the kernel does what Leaks says here, and Leaks is wrong" \
        in result.divergences[0].what


def test_a_recording_that_ends_inside_an_operation_has_no_balance(tmp_path: Path) -> None:
    kernel = ImaginaryKernel("mainline-7.3", pages=PAGES, compressor=LZ4)
    kernel.store(0)
    del kernel.rows[-3:]
    kernel.write(tmp_path / "r")
    result = replay.replay(traces.open_recording(tmp_path / "r"), "mainline-7.3")
    check = next(c for c in result.checks if c.id == "invariant.balance")
    assert (check.compared, check.grade, check.reason) == \
        (0, "not captured", "1 task was inside an operation when the recording ended")


@pytest.mark.parametrize("left", ["holds", "nothing"])
def test_a_cut_knows_what_its_objects_hold(tmp_path: Path, left: str) -> None:
    """The stores are before the cut: its state says which objects of a whole page are the page, or nothing does."""
    recording = recorded(tmp_path / "r")
    loads = np.flatnonzero(recording.frame(["event"])["event"] == "zswap_load")
    cut(recording, str(tmp_path / "cut"), int(loads[0]), len(recording), revision="v14")
    if left == "nothing":
        path = tmp_path / "cut" / "state.json"
        state = json.loads(path.read_text())
        assert [is_page for _, is_page in state.pop("whole_pages")] == [False, True, False, False]
        path.write_text(json.dumps(state))
        manifest = json.loads((tmp_path / "cut" / "manifest.json").read_text())
        manifest["files"]["state.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "cut" / "manifest.json").write_text(json.dumps(manifest))
    result = replay.replay(traces.open_recording(tmp_path / "cut"), "v14", keep_going=True)
    if left == "holds":
        assert counts(result, "invariant.load") == (len(PAGES), len(WRONG))
        return
    assert counts(result, "invariant.load") == (2, 0)
    check = next(c for c in result.checks if c.id == "invariant.load")
    assert check.reason == "what the objects of 4 further pages hold, read back but written before the recording " \
        "began, is not known"


# ---- calls of several pages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folio of 16 pages whose tenth does not compress, stored by each posting that has such calls."""
    text = dict(known.pages())["text"]
    out = {}
    for revision in ("v14", "v12", "v14-meant"):
        path = tmp_path_factory.mktemp("batches") / revision
        out[revision] = recorded(path, revision, [*[text] * 9, known.noise(5), *[text] * 6], order=4, name="deflate-iaa")
        assert replay.replay(out[revision], revision).verdict == "PASS"
    return out


@pytest.mark.parametrize(("revision", "number", "change", "what"), [
    ("v14", 0, {"ret": -22}, "return value"), ("v14", 0, {"ret": -115}, "return value"),
    ("v14", 1, {"ret": -115}, "return value"), ("v14", 0, {"dlen": 0}, "dlen"), ("v14", 1, {"dlen": 0}, "dlen"),
    ("v14", 0, {"dlen": 1}, "dlen"), ("v14", 0, {"dlen": (1 << 32) - 7}, "dlen"),
    ("v12", 0, {"ret": -22}, "return value"), ("v12", 1, {"ret": 0}, "return value"), ("v12", 1, {"dlen": 0}, "dlen"),
    ("v12", 0, {"dlen": 32769}, "dlen"),
    ("v14-meant", 1, {"ret": 0}, "return value"), ("v14-meant", 0, {"dlen": 9}, "dlen"),
])
def test_what_a_call_of_several_pages_returns_is_judged(batches: dict[str, Any], revision: str, number: int,
                                                        change: dict[str, int], what: str) -> None:
    changed = tampered(batches[revision], "crypto_acomp_compress_ret", number, **change)
    first = replay.replay(changed, revision).divergences[0]
    assert first.check == "acomp.batch"
    assert first.what.startswith(what)


def test_either_error_is_right_where_a_page_failed(batches: dict[str, Any]) -> None:
    """v14 returns what submission found and loses what completion found: one page failed, nothing says in which."""
    assert replay.replay(tampered(batches["v14"], "crypto_acomp_compress_ret", 1, ret=-22), "v14").verdict == "PASS"
