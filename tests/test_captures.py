# SPDX-License-Identifier: GPL-2.0-or-later
"""Every raw capture of a real kernel that is at hand: imported, replayed from the first to the last event."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay
import traces
from replay.reference.checks import CHECKS
from replay.verdict.run import others
from traces.errors import BadInput
from traces.importers import import_source

MAINLINE = {"6.12-zstd-4k": "mainline-6.12", "7.2-zstd-4k": "mainline-7.2", "7.3-lz4-4k": "mainline-7.3",
            "7.3-tracecmd": "mainline-7.3", "7.3-zstd-64k": "mainline-7.3"}
PAGE_BY_PAGE = {"acomp.batch": "no compress call of several pages was looked at: this revision, or this compressor, "
                "takes page by page"}
#: Events that these captures lack: they are older than these probes, and no workload of zreplay ran in them.
NOT_RECORDED = {"load.folio": "not captured: zswap_load_ret has no word",
                "writeback.folio": "did not occur in this recording",
                "load.workload": "no workload says in the recording what it found in the pages it read back",
                "shrink.worker": "not probed: memcg_reparent_list_lrus"}
#: Checks that a capture cannot make, and why: nothing else may be left out.
NOT_MADE = {
    "6.12-zstd-4k": dict.fromkeys(("store.raw", "store.bytes", "invariant.raw"), "not probed: zs_obj_write"),
    "7.2-zstd-4k": {"store.length": "the recording holds digests of pages, not their bytes",
                    "store.error": "the recording holds digests of pages, not their bytes"},
}


@pytest.mark.parametrize("name", sorted(MAINLINE))
def test_a_mainline_capture_passes_every_check(captures: Path, tmp_path: Path, name: str) -> None:
    summary = import_source(captures / name, tmp_path / "rec")
    result = replay.replay(traces.open_recording(tmp_path / "rec"))
    assert (result.verdict, result.divergences, result.reasons) == ("PASS", [], [])
    assert result.revision == MAINLINE[name]
    assert result.events == summary["rows"]
    assert result.unexplained == 0
    left_out = {c.id: c.reason for c in result.checks if not c.compared and c.id in CHECKS}
    assert left_out == PAGE_BY_PAGE | NOT_RECORDED | NOT_MADE.get(name, {})
    stores = next(c.compared for c in result.checks if c.id == "acomp.calls")
    assert stores == summary["references"], "every page handed to the compressor was recorded"


@pytest.fixture(scope="module")
def v14(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> traces.Recording:
    path = tmp_path_factory.mktemp("v14") / "rec"
    summary = import_source(captures / "v14-iaa-64k", path)
    assert summary["references"] == 15693
    return traces.open_recording(path)


def test_the_v14_capture_has_calls_of_eight_pages(v14: traces.Recording) -> None:
    frame = v14.frame(["event", "size", "content"])
    calls = frame[frame.event == "crypto_acomp_compress"]
    assert set(calls["size"]) == {4096, 8 * 4096}, "one page, or a batch of eight"
    assert (calls["content"].diff().dropna() == (calls["size"] // 4096).shift().dropna()).all()
    with pytest.raises(BadInput, match=r"no revision mirrors its kernel \(6\.19\.8\)"):
        replay.replay(v14)


def test_the_v14_capture_does_what_v14_says(v14: traces.Recording) -> None:
    result = replay.replay(v14, "v14")
    assert (result.verdict, result.divergences, result.unexplained) == ("PASS", [], 0)
    assert result.events == len(v14)
    # This kernel has CONFIG_ZSMALLOC_STAT: its classes are compared row by row.
    rows = [check for check in result.checks if check.id.startswith("counter.zsmalloc.class")]
    assert {check.id.rpartition(".")[2] for check in rows} == {"obj_allocated", "obj_used", "pages_used", "freeable"}
    assert len(rows) == 4 * 119
    assert all(check.compared == 12 for check in rows)


def test_the_v14_capture_leaves_mainline_at_its_first_store(v14: traces.Recording) -> None:
    result = replay.replay(v14, "mainline-7.2")
    (first,) = result.divergences
    frame = v14.frame(["event"])
    store = int((frame.event == "zswap_store").idxmax())
    assert result.verdict == "FAIL"
    # Writeback is asked for first, once per folio: mainline asks where a page does not compress.
    assert (first.check, first.event, first.recorded) \
        == ("effect.order", store + 1, "mem_cgroup_zswap_writeback_enabled_ret")
    assert first.predicted == "obj_cgroup_may_zswap_ret"
    assert [name for name, _ in first.path] == ["swap_writeout"]
    assert others(v14, result) == ["v12", "v12-meant", "v14", "v14-meant", "v14-on-7.3"]


def test_the_v14_capture_is_not_what_v14_means(v14: traces.Recording) -> None:
    # 18/26 loses the error of a batch in which a page failed.
    result = replay.replay(v14, "v14-meant")
    (first,) = result.divergences
    assert (result.verdict, first.check, first.recorded, first.predicted) == ("FAIL", "acomp.batch", 0, -22)


@pytest.mark.parametrize("revision", ["v14-25", "v12-22", "v8"])
def test_the_v14_capture_is_not_another_posting(v14: traces.Recording, revision: str) -> None:
    assert replay.replay(v14, revision).verdict == "FAIL"
