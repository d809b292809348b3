# SPDX-License-Identifier: GPL-2.0-or-later
"""Which branches a revision has, how often the model takes them, and what is said of those that did not occur."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from conftest import ROOT
from modelrun import Box, full_at

from model import errno
from model.branches import BRANCHES, branches_of
from model.effects import DECISIONS, DEFAULTS
from model.list_lru import ListLru
from model.revisions import REVISIONS
from model.revisions.mainline_7 import Mainline73
from model.zsmalloc import ZsPool
from model.zswap import Folio, ZswapEntry
from replay.cli import main
from replay.tools.coverage import missing, only_one, sentence, summed
from replay.verdict.run import replay
from traces.recording import Recording

SAMPLES = ROOT / "traces" / "samples"


def of(name: str) -> tuple[str, ...]:
    return branches_of(REVISIONS[name], ZsPool, ListLru)


def marked() -> set[str]:
    """The branches that the model's code counts, as its text has them."""
    found = set()
    for path in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "reached":
                names = [leaf.value for leaf in ast.walk(node.slice) if isinstance(leaf, ast.Constant)]
                found |= {name for name in names if isinstance(name, str)}
    return found


def test_what_the_code_counts_is_what_is_listed() -> None:
    assert marked() == set(BRANCHES)


def test_every_branch_is_some_revision_s() -> None:
    assert {branch for name in REVISIONS for branch in of(name)} == set(BRANCHES)


def test_branches_are_those_of_the_steps_that_a_revision_has() -> None:
    batches = {name for name in BRANCHES if name.startswith(("zswap_store_pages.", "zswap_entries_cache_alloc_batch."))}
    assert batches <= set(of("v14"))
    assert batches - set(of("v12")) == {"zswap_entries_cache_alloc_batch.some"}
    assert not batches & set(of("mainline-7.3"))
    # 6.12 keeps no page as it is, refuses large folios, and waits for readers of a zspage; 7.1's root has an obj_cgroup.
    assert {"zswap_store.large", "zs_malloc.ENOSPC"} <= set(of("mainline-6.12")) - set(of("mainline-7.3"))
    assert {"zswap_compress.raw", "zs_compact.in_use"} <= set(of("mainline-7.3")) - set(of("mainline-6.12"))
    assert "zswap_store.no_objcg" in of("mainline-7.0")
    assert "zswap_store.no_objcg" not in of("mainline-7.1")


def test_a_step_that_is_overridden_takes_its_branches_with_it() -> None:
    class Refuses(Mainline73):
        def zswap_compress(self, folio: Folio, index: int, entry: ZswapEntry):  # type: ignore[no-untyped-def]
            yield ("crypto_acomp_compress", folio, index, 1, entry.pool)
            yield ("crypto_acomp_compress_ret", folio, index)
            return False

    class Calls(Mainline73):
        def zswap_compress(self, folio: Folio, index: int, entry: ZswapEntry):  # type: ignore[no-untyped-def]
            return (yield from super().zswap_compress(folio, index, entry))

    whole = of("mainline-7.3")
    gone = set(whole) - set(branches_of(Refuses, ZsPool, ListLru))
    assert gone == {name for name in whole if name.startswith(("zswap_compress.", "zs_malloc."))}
    assert branches_of(Calls, ZsPool, ListLru) == whole


def test_the_pool_s_limit_band_and_acceptance_are_told_apart() -> None:
    box = full_at(20, 10, "mainline-7.3")
    for slot in range(20):
        box.store(slot)
    reached = box.model.reached
    assert not [name for name in reached if name.startswith("zswap_check_limits.")]
    box.store(100)
    box.invalidate(0)
    box.store(100)
    assert (reached["zswap_check_limits.full"], reached["zswap_check_limits.band"]) == (1, 1)
    assert not reached["zswap_check_limits.accept"]
    for slot in range(1, 10):
        box.invalidate(slot)
    box.store(100)
    box.store(101)
    assert reached["zswap_check_limits.accept"] == 1
    assert reached["zswap_invalidate.stored"] == 10
    assert reached["zs_free.zspage"] == 10


@pytest.mark.parametrize(("error", "branch"), [
    (errno.ENOSPC, "ENOSPC"), (errno.EINVAL, "EINVAL"), (errno.E2BIG, "E2BIG"), (errno.ENODEV, "ENODEV"),
    (errno.ETIMEDOUT, "ETIMEDOUT"), (errno.EIO, "EIO"), (errno.ENOSYS, "error")])
@pytest.mark.parametrize("revision", ["mainline-6.12", "mainline-7.3", "v14", "v14-25"])
def test_each_errno_of_a_compressor_is_a_branch(revision: str, error: int, branch: str) -> None:
    box = Box(revision, length=error)
    box.store(7)
    took = {name for name, times in box.model.reached.items() if (times and name.startswith("zswap_compress.E"))
            or name == "zswap_compress.error"}
    assert took == {f"zswap_compress.{branch}"}
    assert set(box.model.reached) <= set(of(revision))


def test_a_store_that_fails_over_an_old_entry_is_a_branch() -> None:
    box = Box(length=lambda slot: 100)
    box.store(7)
    box.store(7)
    assert box.model.reached["zswap_store_page.replace"] == 1
    assert not box.model.reached["zswap_store.erase"]
    box.model.writeback_enabled = False
    box.length = errno.EINVAL
    box.store(7)
    assert box.model.reached["zswap_store.erase"] == 1
    assert box.model.reached["zswap_compress.no_writeback"] == 1
    assert not box.model.reached["zswap_compress.raw"]


@pytest.mark.parametrize("sample", ["7.3-lz4-limits", "7.2-lz4-edge", "6.12-zstd-4k"])
def test_both_engines_count_the_same(sample: str) -> None:
    results = [replay(Recording(SAMPLES / sample), engine=engine) for engine in ("reference", "fast")]
    assert results[1].compiled
    assert results[0].branches == results[1].branches
    assert tuple(results[0].branches) == of(results[0].revision)
    assert 5 < sum(times > 0 for times in results[0].branches.values()) < len(results[0].branches)


def test_a_recording_cut_short_counts_what_lies_before_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = replay(Recording(SAMPLES / "7.3-lz4-limits")).branches
    assert main(["cut", str(SAMPLES / "7.3-lz4-limits"), "--from", "0", "--to", "5000", "-o", str(tmp_path / "cut")]) == 0
    capsys.readouterr()
    part = replay(Recording(tmp_path / "cut")).branches
    assert all(part[name] <= whole[name] for name in whole)
    assert sum(part.values()) < sum(whole.values())


def test_a_pass_says_how_much_of_its_revision_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(SAMPLES / "7.2-lz4-edge")
    branches = replay(Recording(sample)).branches
    seen = sum(times > 0 for times in branches.values())
    said = f"{seen} of {len(branches)} branches of mainline-7.2 occurred"
    assert main(["replay", sample]) == 0
    plain = capsys.readouterr().out
    assert f"\n{said}; taken from the recording" in plain
    assert "; --coverage lists them\n" in plain.replace("\n  ", " ")
    assert "zswap_store.erase" not in plain
    assert main(["replay", sample, "--coverage"]) == 0
    table = capsys.readouterr().out.split(f"\n{said}:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[1:]] == list(branches)
    for line in table[1:]:
        name, times, what = line.split(maxsplit=2)
        assert times == (f"{branches[name]:,}" if branches[name] else "-")
        assert what == BRANCHES[name]


def test_what_is_taken_and_not_judged_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(SAMPLES / "7.3-lz4-limits")
    result = replay(Recording(sample))
    assert DECISIONS["?shrink_next"] in result.taken
    assert DECISIONS["?xa_store"] not in result.taken, "its counter stayed 0: nothing was left to answer"
    assert "whether zswap_load() marks the folio up to date and dirty" in result.unseen
    assert main(["replay", sample, "--coverage"]) == 0
    listed = capsys.readouterr().out.split("\n\n")[-2:]
    assert listed[0].splitlines() == ["taken from the recording, not judged:", *(f"  {what}" for what in result.taken)]
    assert listed[1].splitlines() == ["in no event of this recording:", *(f"  {what}" for what in result.unseen)]


def test_every_question_that_decides_has_its_sentence() -> None:
    # What they ask is compared, or can be answered otherwise only where other tasks' events allow it.
    known = {"?shrink_order", "?acomp_batch", "?class_lock", "?compacting", "?compact_end", "?contended",
            "?zspage_write_trylock", "?lru_more"}
    assert set(DECISIONS) == set(DEFAULTS) - known


def test_of_several_recordings_all_are_summed(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [str(SAMPLES / name) for name in ("7.3-lz4-limits", "7.3-lz4-4k")]
    one, other = (replay(Recording(sample)).branches for sample in samples)
    assert main(["replay", *samples, "--coverage"]) == 0
    out = capsys.readouterr().out
    both = summed([("mainline-7.3", one), ("mainline-7.3", other)])["mainline-7.3"]
    assert f"in 2 of 2 replays:\n{sentence('mainline-7.3', both)}:" in out
    assert sum(times > 0 for times in both.values()) > max(sum(times > 0 for times in each.values()) for each in (one, other))


def test_json_has_all_branches(capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(SAMPLES / "7.3-lz4-limits")
    assert main(["replay", sample, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["branches"] == replay(Recording(sample)).branches


def test_what_only_one_side_took_is_told() -> None:
    base, patched = {"a": 1, "b": 0, "c": 2, "d": 1}, {"a": 3, "b": 4, "c": 0, "e": 1}
    assert only_one(base, patched) == (["c"], ["b"])
    assert missing(base) == ["b"]
