# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording can show of the known defects: the posting plays the kernel, another revision judges it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import replay
import traces
from model.counters import DEBUGFS, VMSTAT
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from replay.tools.synthetic import ImaginaryKernel, config
from traces import schema
from traces.recording import RecordingWriter

TEXT = dict(known.pages())["text"]
EXACT = known.repeat_in_noise(21)
NOISE = known.noise(3)


class Kernel(ImaginaryKernel):
    """Reads its counters before and after what it does."""

    def __init__(self, revision: str, compressor: str, pages: list[bytes]) -> None:
        super().__init__(revision, pages=pages, compressor=compressor_for(compressor, "mainline-7.3"))
        self.snapshots: list[dict[str, Any]] = []
        self.look()

    def look(self) -> None:
        """A counter snapshot; it belongs to no task."""
        counts = self.model.counters
        values = {files: {name: str(getattr(counts, name)) for name in names if hasattr(counts, name)}
                  for files, names in (("zswap_debugfs", DEBUGFS), ("vmstat", VMSTAT))}
        self.pid, pid = 0, self.pid
        self._row("counters", ret=len(self.snapshots))
        self.pid = pid
        self.snapshots.append({"t": len(self.rows) / 1e6, **values})


def kernel_of(revision: str, compressor: str, pages: list[bytes]) -> Kernel:
    return Kernel(revision, compressor, pages)


def write(path: Path, kernel: Kernel, compressor: str, texts: list[tuple[int, str]] | None = None,
          **params: str) -> traces.Recording:
    """Write what a revision did that plays the kernel."""
    made = config(kernel.revision)
    made["kernel"] = {"release": "7.0.0", "version": "7.0.0"}
    made["config"]["compressor"] = compressor
    made["config"]["params"] |= params
    kernel.look()
    with RecordingWriter(path) as writer:
        writer.write_rows(kernel.block(), texts or ())
        for number, values in enumerate(kernel.snapshots):
            writer.add_snapshot(f"{number}", 0, values)
        for number in kernel.handed:
            writer.pages.add(kernel.pages[number])
        writer.close(made)
    return traces.open_recording(path)


def event_of(recording: traces.Recording, name: str, number: int = 0) -> int:
    """The number of an event: of its name the first, or a later one."""
    names = recording.frame(["event"]).event.tolist()
    return [row for row, event in enumerate(names) if event == name][number]


def judged(recording: traces.Recording, revision: str) -> tuple[str, str, int]:
    """Verdict, and check and event of the first divergence."""
    result = replay.replay(recording, revision)
    if not result.divergences:
        return result.verdict, "", -1
    first = result.divergences[0]
    return result.verdict, first.check, first.event


def l1(path: Path, revision: str) -> traces.Recording:
    """A page that lz4 makes exactly a page of, stored and read back."""
    kernel = kernel_of(revision, "lz4", [EXACT])
    assert kernel.store(0)
    kernel.load(0)
    return write(path, kernel, "lz4")


@pytest.mark.parametrize("revision", ["v14", "v12"])
def test_l1_fails_where_compressed_bytes_are_written_for_the_page(tmp_path: Path, revision: str) -> None:
    recording = l1(tmp_path / "rec", revision)
    # The posting predicts just that: an invariant decides, behind the load's read.
    assert judged(recording, revision) == ("FAIL", "invariant.load", event_of(recording, "zswap_entry_free"))
    assert judged(recording, f"{revision}-meant") == ("FAIL", "store.raw", event_of(recording, "zs_obj_write"))


def test_l1_of_the_meant_one_is_clean_there_and_fails_on_the_posting(tmp_path: Path) -> None:
    recording = l1(tmp_path / "rec", "v14-meant")
    assert judged(recording, "v14-meant") == ("PASS", "", -1)
    verdict, check, event = judged(recording, "v14")
    # Of bytes it only knows that they are not the ones it expected.
    assert (verdict, check, event) == ("FAIL", "store.bytes", event_of(recording, "zs_obj_write"))


def l2(path: Path, revision: str) -> traces.Recording:
    """A folio of 15 pages of text and a random one under a batching compressor, writeback forbidden."""
    kernel = kernel_of(revision, "deflate-iaa", [TEXT] * 15 + [NOISE])
    kernel.model.set_param("memory.zswap.writeback", "0")
    kernel.store(0, 4)
    return write(path, kernel, "deflate-iaa", **{"memory.zswap.writeback": "0"})


def test_l2_fails_where_the_second_batch_is_stored(tmp_path: Path) -> None:
    """The recorded call says 0 though one of its pages failed: as meant the folio is rejected there."""
    recording = l2(tmp_path / "rec", "v14")
    assert judged(recording, "v14") == ("FAIL", "invariant.raw", event_of(recording, "zs_obj_write", 15))
    # The first object of the second batch, the ninth in all: here the meant one gives the folio up, for a page that
    # the call should have failed for.
    assert judged(recording, "v14-meant") == ("FAIL", "acomp.batch", event_of(recording, "zs_malloc", 8))
    assert judged(recording, "v12")[0] == "FAIL"


def test_l2_with_writeback_fails_at_what_the_call_returns(tmp_path: Path) -> None:
    kernel = kernel_of("v14", "deflate-iaa", [TEXT] * 15 + [NOISE])
    assert kernel.store(0, 4)
    recording = write(tmp_path / "rec", kernel, "deflate-iaa")
    assert judged(recording, "v14") == ("PASS", "", -1)
    for revision in ("v14-meant", "v12"):
        # Seen when the last page of the batch has been stored, at the event that follows.
        assert judged(recording, revision)[:2] == ("FAIL", "acomp.batch"), revision
        assert judged(recording, revision)[2] > event_of(recording, "zs_obj_write", 15)


@pytest.mark.parametrize("revision", ["v14-meant", "v12", "v8"])
def test_l2_of_those_that_reject_the_folio_is_clean(tmp_path: Path, revision: str) -> None:
    recording = l2(tmp_path / "rec", revision)
    # v14 as posted has nothing against it: an error of submission it returns as well.
    assert judged(recording, revision) == ("PASS", "", -1)


def l15(path: Path, revision: str) -> traces.Recording:
    """A large folio is stored, the parameter switched off, the folio swapped out again, a page of it read."""
    kernel = kernel_of(revision, "lz4", [TEXT] * 4)
    kernel.model.set_param("mthp_enabled", "Y")
    assert kernel.store(0, 2)
    texts = [kernel.mark("param mthp_enabled=N")]
    kernel.model.set_param("mthp_enabled", "N")
    kernel.store(0, 2)
    kernel.load(1)
    return write(path, kernel, "lz4", texts, mthp_enabled="Y")


def test_l15_fails_where_the_refused_folio_leaves_its_pages(tmp_path: Path) -> None:
    recording = l15(tmp_path / "rec", "v6")
    assert judged(recording, "v6") == ("FAIL", "invariant.load", event_of(recording, "zswap_entry_free"))
    assert judged(recording, "v6-meant") == ("FAIL", "effect.order", event_of(recording, "zswap_store_ret", 1))
    assert judged(l15(tmp_path / "meant", "v6-meant"), "v6-meant") == ("PASS", "", -1)


def test_l7_fails_at_the_counter(tmp_path: Path) -> None:
    kernel = kernel_of("v14-on-7.3", "lz4", [TEXT] * 16)
    assert kernel.store(0, 4)
    recording = write(tmp_path / "rec", kernel, "lz4")
    assert judged(recording, "v14-on-7.3") == ("FAIL", "invariant.balance", len(recording) - 1)
    verdict, check, event = judged(recording, "v14")
    assert (verdict, check, event) == ("FAIL", "counter.zswap.reject_kmemcache_fail", event_of(recording, "counters", 1))


def test_l16_fails_at_the_counter(tmp_path: Path) -> None:
    kernel = kernel_of("v6", "lz4", [TEXT] * 9 + [NOISE] + [TEXT] * 6)
    kernel.model.set_param("mthp_enabled", "Y")
    kernel.store(0, 4)
    recording = write(tmp_path / "rec", kernel, "lz4", mthp_enabled="Y")
    assert judged(recording, "v6") == ("FAIL", "invariant.balance", event_of(recording, "zswap_store_ret"))
    verdict, check, event = judged(recording, "v6-meant")
    assert (verdict, check, event) == ("FAIL", "counter.vmstat.zswpout", event_of(recording, "counters", 1))


@pytest.mark.parametrize("order", [0, 1, 3, 4])
@pytest.mark.parametrize("revision", ["v12", "v14", "v14-meant", "v14-on-7.3", "v8"])
def test_calls_of_several_pages_are_recorded_as_they_are_replayed(tmp_path: Path, revision: str, order: int) -> None:
    kernel = kernel_of(revision, "deflate-iaa", [TEXT, TEXT, known.noise(9, 2048) * 2])
    assert kernel.store(0, order)
    for slot in range(1 << order):
        kernel.load(slot)
    recording = write(tmp_path / "rec", kernel, "deflate-iaa")
    frame = recording.frame(["event", "size"])
    sizes = frame[frame.event == "crypto_acomp_compress"]["size"].tolist()
    batch = min(8, 1 << order)
    # The head of a chain asks for its own page.
    assert sizes == [4096 if revision == "v8" else batch * 4096] * ((1 << order) // batch)
    # What L7 leaks from each batch of several pages does not come back.
    leaks = revision == "v14-on-7.3" and order > 0
    assert judged(recording, revision)[:2] == (("FAIL", "invariant.balance") if leaks else ("PASS", ""))


def test_l16_on_a_kernel_with_v6() -> None:
    """The folio's fourteenth page does not compress: thirteen stay counted."""
    recording = traces.open_recording(ROOT / "traces/found/v6-zswpout")
    result = replay.replay(recording)
    assert result.revision == "v6"
    (first,) = result.divergences
    assert (first.check, first.recorded - first.predicted) == ("invariant.balance", 13)
    events = recording.frame(["event", "ret"])
    assert (events.event[first.event], events.ret[first.event]) == ("zswap_store_ret", 0)
    # As meant nothing differs up to here: no snapshot follows.
    assert judged(recording, "v6-meant") == ("PASS", "", -1)


@pytest.mark.parametrize(("name", "series"), [("v8-iaa-64k", "v8"), ("v12-iaa-64k", "v12")])
def test_kernels_with_postings_leave_mainline_at_once(name: str, series: str) -> None:
    recording = traces.open_recording(ROOT / "traces/samples" / name)
    assert replay.replay(recording).revision == series
    line = {"v8": "mainline-6.12", "v12": "mainline-6.18"}[series]
    first = replay.replay(recording, line).divergences[0]
    assert (first.check, first.event < 10) == ("effect.order", True)
    # v8 asks for memory.zswap.max, where 6.12 refuses a large folio unseen; v12 asks for writeback first of all.
    assert (first.recorded, first.predicted) == {
        "v8": ("obj_cgroup_may_zswap_ret", "zswap_store_ret"),
        "v12": ("mem_cgroup_zswap_writeback_enabled_ret", "zs_get_total_pages_ret")}[series]


@pytest.mark.parametrize(("counted", "passes"), [(0, True), (1, True), (8, True), (9, False)])
def test_a_snapshot_in_the_middle_of_a_chain(tmp_path: Path, counted: int, passes: bool) -> None:
    """It was read when the call had returned: what became of its pages shows with the task's next event."""
    kernel = kernel_of("v8", "deflate-iaa", [TEXT, TEXT, NOISE])
    assert not kernel.store(0, 3)
    names = [schema.NAMES[row[3]] for row in kernel.rows]
    at = names.index("crypto_acomp_compress_ret") + 1
    rows = list(kernel.rows)
    kernel.rows = rows[:at]
    kernel.look()
    seen = copy.deepcopy(kernel.snapshots[-1])
    seen["zswap_debugfs"]["reject_compress_fail"] = str(counted)
    kernel.snapshots[-1] = seen
    for row in rows[at:]:
        row[0] += 1
    kernel.rows += rows[at:]
    verdict, check, _ = judged(write(tmp_path / "rec", kernel, "deflate-iaa"), "v8")
    assert (verdict, check) == (("PASS", "") if passes else ("FAIL", "counter.zswap.reject_compress_fail"))
