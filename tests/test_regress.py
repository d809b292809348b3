# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sets of recordings: what is the same, what is worse, and what is inconclusive."""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regressing import Plan, record
from scipy import stats

from replay.cli import main
from replay.cli.regress import report
from replay.regress import MeasureVerdict, Regression, measure, regress
from replay.regress.catalogue import Better, Kind, Measure
from replay.regress.compare import ALIKE, LEAST_SHARE, WHOLE, Pages
from replay.regress.compare import PAGES as SAME_PAGES
from replay.regress.matching import Alike, OperationSequence, alike
from replay.regress.measures import Run, emulated
from replay.regress.statistics import KernelRuns, holm
from replay.regress.statistics import test as compare_means
from replay.regress.table import MAIL_WIDTH, change, mail, number
from traces.errors import BadInput
from traces.recording import Recording

quick = settings(deadline=None, max_examples=150)


def ids(result: Regression, verdict: str) -> set[str]:
    return {check.id for check in result.of(verdict)}


def check_of(result: Regression, name: str) -> MeasureVerdict:
    (found,) = [check for check in (*result.checks, *result.facts) if check.id == name]
    return found


def pair(tmp_path: Path, base: Plan, patched: Plan, runs: int = 1) -> Regression:
    """Record this many runs of each kernel; their times differ a little, nothing else does."""
    sides = []
    for side, plan in (("base", base), ("patched", patched)):
        made = []
        for turn in range(runs):
            slow = plan.slow + (0.001 * turn if runs > 1 else 0)
            made.append(record(tmp_path / f"{side}-{turn}", Plan(**{**vars(plan), "slow": slow})))
        sides.append(made)
    return regress(*sides)


# ---- a run and another that does the same ------------------------------------------------------------------


def again(path: Path, tmp_path: Path) -> Recording:
    """Return a recording of a run that did what another did, a second later."""
    from tampering import Tampered

    made = Tampered(Path(shutil.copytree(path, tmp_path / "again")))
    made.columns["ts"] = made.columns["ts"] + 10**9
    return made


@pytest.mark.parametrize("name", ["6.12-zstd-4k", "7.0-lz4-64k", "7.2-zstd-4k", "7.3-lz4-4k", "7.3-zstd-64k"])
def test_a_run_that_repeats_is_the_same(samples: dict[str, Path], name: str, tmp_path: Path) -> None:
    result = regress([Recording(samples[name])], [again(samples[name], tmp_path)])
    assert ids(result, "worse") == ids(result, "better") == set()
    assert len(result.of("same")) > 20
    assert result.alike.different == 0


def test_two_cpus_are_not_called_alike_beyond_the_first_overlap(samples: dict[str, Path], tmp_path: Path) -> None:
    result = regress([Recording(samples["7.3-zstd-smp2"])], [again(samples["7.3-zstd-smp2"], tmp_path)])
    assert result.alike.why == "two tasks are inside operations at once"
    assert 0 < result.alike.count < len(result.base[0].operations.events)


def test_losses_on_both_sides(tmp_path: Path) -> None:
    plan = Plan(losses=[{"cpu": 0, "lost": 3}])
    result = regress([record(tmp_path / "a", plan)], [record(tmp_path / "b", plan)])
    assert result.of("same") == result.of("worse") == result.of("better") == []
    assert (result.verdict, result.exit_status, result.why) == ("undecided", 3, "events were lost")
    assert any("lost 3 events" in note for note in result.notes)


# ---- one run is one run -------------------------------------------------------------------------------------


def copies(tmp_path: Path) -> dict[str, Path]:
    """One run by many names: itself, by a link, copied, written anew in other pieces, and scrubbed of its pages."""
    from replay.tools.scrub import scrub

    kept = record(tmp_path / "kept", Plan(later=5))
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    shutil.copytree(tmp_path / "kept", tmp_path / "copy")
    record(tmp_path / "anew", Plan(later=5, digests=lambda page: page[:1].hex() * 20))
    scrub(kept, str(tmp_path / "scrubbed"), seed=1)
    return {name: tmp_path / name for name in ("kept", "link", "copy", "anew", "scrubbed")}


def test_a_run_given_twice_is_refused_by_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        record(tmp_path / name)
    others = [str(tmp_path / name) for name in ("a", "b", "c")]
    for name, path in copies(tmp_path).items():
        for words in (["--base", *others, "--patched", str(tmp_path / "kept"), str(path)],
                      ["--base", str(tmp_path / "kept"), str(path), "--patched", *others],
                      ["--base", str(tmp_path / "kept"), "--patched", str(path)],
                      ["--base", str(tmp_path / "kept"), "--patched", *others, str(path)]):
            assert main(["regress", *words]) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert err.startswith(f"zreplay: {path}: is ")
            again = "is given twice" if name == "kept" else f"is the run that {tmp_path / 'kept'} is: the same events"
            assert again in err
            assert err.endswith("; give each run once, and record further ones.\n")


def test_runs_that_did_the_same_at_other_times_are_several(tmp_path: Path) -> None:
    runs = [measure(record(tmp_path / str(number))) for number in range(3)]
    assert len({run.identity for run in runs}) == 3
    # How it is read decides nothing.
    one = Recording(tmp_path / "0")
    whole = one.batches
    one.batches = lambda columns, rows=7, start=0: whole(columns, rows=7, start=start)  # type: ignore[method-assign]
    assert measure(one).identity == runs[0].identity


# ---- how much is conclusive ----------------------------------------------------------------------------------------


def result_of(sure: int, unsure: int, losses: bool = False, times: int = 0, emulated: bool | None = None) -> Regression:
    """A result with these numbers of checks, and with times from an emulator or not."""
    kinds = [("same", Kind.COUNT)] * sure + [("inconclusive", Kind.COUNT)] * unsure + [("inconclusive", Kind.TIME)] * times
    checks = [MeasureVerdict(Measure(str(number), "x", "", "g", Better.LOWER, kind), WHOLE, None, None, verdict)
              for number, (verdict, kind) in enumerate(kinds)]
    return Regression([Run("a", "7.3", "lz4", {}, emulated=emulated)], [Run("b", "7.4", "lz4", {}, emulated=emulated)],
                      Alike(0, (0, 0), ""), Pages(why="x"), checks, [], [], 0.02, losses=["a: lost 3"] if losses else [])


@pytest.mark.parametrize(("sure", "unsure", "verdict"), [(66, 34, "undecided"), (67, 33, "not worse"), (2, 1, "not worse"),
                                                         (1, 1, "undecided"), (0, 0, "undecided"), (52, 77, "undecided")])
def test_not_worse_takes_two_thirds_of_the_checks(sure: int, unsure: int, verdict: str) -> None:
    result = result_of(sure, unsure)
    assert (result.verdict, result.exit_status) == (verdict, 3 if verdict == "undecided" else 0)
    said = f"{sure} of {sure + unsure} checks are conclusive ({100 * sure // max(1, sure + unsure)} %); \"not worse\" takes 67 %"
    assert result.share == said
    assert result.why == (said if verdict == "undecided" else "")
    assert result.as_dict()["share"] == {"conclusive": sure, "of": sure + unsure, "least": LEAST_SHARE}
    for lines in (list(report(result)), list(mail(result))):
        assert said in " ".join(" ".join(lines).split())
    assert next(report(result)).startswith(verdict.upper())


@quick
@given(st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_more_that_is_inconclusive_never_clears(sure: int, unsure: int, losses: bool) -> None:
    order = ["undecided", "not worse"]
    assert order.index(result_of(sure, unsure + 1, losses).verdict) <= order.index(result_of(sure, unsure, losses).verdict)


def test_an_emulators_times_are_not_asked_for() -> None:
    assert result_of(70, 30, times=40).verdict == "undecided"
    result = result_of(70, 30, times=40, emulated=True)
    assert result.verdict == "not worse"
    assert "70 of 100 checks are conclusive (70 %, an emulator's times not counted)" in result.share


def test_one_worse_is_worse_however_little_is_conclusive() -> None:
    result = result_of(1, 99)
    result.checks[0].verdict = "worse"
    assert (result.verdict, result.exit_status) == ("worse", 1)


def test_other_work_is_not_the_same(tmp_path: Path) -> None:
    """Three steady runs of each, one kernel with a sixth more stores: whole runs have nothing the same."""
    result = pair(tmp_path, Plan(), Plan(extra=30), runs=3)
    assert any("did not do the same work" in note for note in result.notes)
    assert {check.scope for check in result.of("same")} <= {ALIKE, SAME_PAGES}
    unsure = [check for check in result.of("inconclusive") if check.reason == "base and patched did not do the same work"]
    assert {"counter.zswap.reject_compress_fail", "counter.zswap.pool_limit_hit"} <= {check.id for check in unsure}
    same = pair(tmp_path / "less", Plan(), Plan(extra=2), runs=3) if (tmp_path / "less").mkdir() is None else None
    assert same is not None
    assert "counter.zswap.reject_compress_fail" in ids(same, "same")


# ---- what is measured ------------------------------------------------------------------------------------


def test_measures_are_what_was_recorded(tmp_path: Path) -> None:
    """Against counts made another way, of the whole table at once."""
    recording = record(tmp_path / "a")
    run = measure(recording)
    frame = recording.frame()
    stores = frame[frame.event == "zswap_store"]
    assert run.values["run.stores"] == len(stores)
    assert run.values["run.pages"] == (2 ** stores.order.astype(int)).sum() == 8 * 16 + 32 + 12
    assert run.values["run.loads"] == 60
    assert run.values["run.invalidates"] == 40
    assert run.values["run.compactions"] == 1
    assert run.orders == {4: 128, 0: 44}
    sizes = frame.loc[frame.event == "zs_malloc", "size"]
    assert run.values["length.mean"] == sizes.mean()
    assert run.values["length.median"] == sizes.median()
    assert run.values["length.raw"] == (sizes == 4096).mean() > 0
    compressed = frame[frame.event == "crypto_acomp_compress_ret"]
    assert run.values["compress.errors"] == (compressed.ret != 0).mean() == (sizes == 4096).mean()
    assert run.values["compress.pages_per_call"] == 1
    assert run.values["compress.calls_per_store"] == len(compressed) / len(stores)
    assert run.values["pool.pages.peak"] == frame.loc[frame.event == "zs_get_total_pages_ret", "ret"].max()
    assert run.values["effect.store.zs_malloc"] == run.values["effect.store.list_lru_add"] == 1
    # Twelve single pages went over old ones.
    assert run.values["effect.store.zswap_entry_free"] == 12 / 172
    assert run.values["effect.load.crypto_acomp_decompress"] == (frame.event == "crypto_acomp_decompress").sum() / 60
    assert run.values["effect.invalidate.zs_free"] == 1
    assert run.values["pool.pages@middle"] == 90
    assert run.values["pool.overhead@middle"] == 90 * 4096 / sizes[:160].sum()
    assert run.values["counter.vmstat.zswpout"] == 320
    assert "pool.overhead@before" not in run.values


def test_times_are_entry_to_return(tmp_path: Path) -> None:
    recording = record(tmp_path / "a")
    run = measure(recording)
    frame = recording.frame()
    for function, measured in (("zswap_load", "zswap_load"), ("zs_malloc", "zs_malloc"),
                               ("crypto_acomp_compress", "crypto_acomp_compress")):
        spans = (frame.loc[frame.event == f"{function}_ret", "ts"].to_numpy()
                 - frame.loc[frame.event == function, "ts"].to_numpy())
        assert run.values[f"time.{measured}.median"] == np.median(spans) > 0
    assert run.values["time.zswap_store.order4.median"] > run.values["time.zswap_store.order0.median"] > 0
    assert run.missing["time.zswap_store.order4.p90"] == "fewer than 10 calls"


def test_what_a_probe_did_not_see_has_no_value(tmp_path: Path) -> None:
    result = regress([record(tmp_path / "a", Plan(without="zs_obj_write"))], [record(tmp_path / "b")])
    check = check_of(result, "alike.effect.store.zs_obj_write" if result.alike.whole else "effect.store.zs_obj_write")
    assert (check.verdict, check.base) == ("inconclusive", None)
    assert "base: zs_obj_write was not probed" in check.reason


def test_real_batches_are_told(captures: Path, tmp_path: Path) -> None:
    """A kernel with the v14 series hands eight pages of a large folio to one call."""
    from traces.importers import import_source

    for name in ("v14-iaa-64k", "7.3-zstd-64k"):
        if not (captures / name).is_dir():
            pytest.skip(f"no capture {name}")
        import_source(captures / name, tmp_path / name)
    result = regress([Recording(tmp_path / "7.3-zstd-64k")], [Recording(tmp_path / "v14-iaa-64k")])
    check = check_of(result, "alike.compress.pages_per_call")
    assert (check.verdict, check.base.mean if check.base else 0) == ("better", 1)
    assert check.patched is not None
    assert check.patched.mean > 1.9
    assert result.pages.longer
    assert result.pages.shorter
    assert result.base[0].emulated is result.patched[0].emulated is True


def test_a_folio_of_absurd_order_is_refused(tmp_path: Path) -> None:
    from tampering import Tampered

    record(tmp_path / "a")
    made = Tampered(tmp_path / "a")
    made.columns["order"][2] = 200
    with pytest.raises(BadInput, match=r"event 2: a folio of order 200 makes no sense"):
        measure(made)


# ---- planted changes -------------------------------------------------------------------------------------


def test_longer_pages_are_found(tmp_path: Path) -> None:
    result = pair(tmp_path, Plan(), Plan(longer=40, release="7.4"))
    assert result.alike.whole
    worse = ids(result, "worse")
    assert {"alike.length.mean", "alike.length.median", "length.pages"} <= worse
    assert "alike.compress.pages_per_call" in ids(result, "same")
    assert (result.pages.shared, result.pages.longer, result.pages.shorter) == (40, 38, 0)
    assert result.exit_status == 1
    assert result.alike.first == 0
    assert result.first_events() == [2, 2]
    assert any("the first is operation 0: event 2 of base-0, event 2 of patched-0" in note for note in result.notes)
    # And the other way round it is an improvement.
    back = regress([Recording(tmp_path / "patched-0")], [Recording(tmp_path / "base-0")])
    assert {"alike.length.mean", "length.pages"} <= ids(back, "better")
    # These snapshots are synthetic, so fewer bytes lie in a pool of the same size.
    assert ids(back, "worse") == {"alike.pool.overhead@middle", "alike.pool.overhead@end"}


def test_one_page_longer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = record(tmp_path / "a")
    import regressing

    real = regressing.ByFirstByte.compress
    monkeypatch.setattr(regressing.ByFirstByte, "compress",
                        lambda self, page: real(self, page) if page[0] != 7 else made_longer(real(self, page)))
    patched = record(tmp_path / "b")
    result = regress([base], [patched])
    assert (result.pages.longer, result.pages.shorter) == (1, 0)
    assert {"length.pages", "alike.length.mean"} <= ids(result, "worse")


def made_longer(result: object) -> object:
    return result._replace(dlen=result.dlen + 1, data=result.data + b"x")  # type: ignore[attr-defined]


def test_batches_are_found(tmp_path: Path) -> None:
    result = pair(tmp_path, Plan(), Plan(batch=8))
    better = ids(result, "better")
    assert {"alike.compress.pages_per_call", "alike.compress.calls_per_store",
            "alike.effect.store.crypto_acomp_compress"} <= better
    check = check_of(result, "alike.compress.pages_per_call")
    assert check.base is not None
    assert check.patched is not None
    assert check.base.mean == 1
    # Eight folios in two calls each, 44 single pages.
    assert check.patched.mean == 172 / (16 + 44)
    assert "alike.length.mean" in ids(result, "same")
    assert (result.pages.longer, result.pages.shorter) == (0, 0)
    back = regress([Recording(tmp_path / "patched-0")], [Recording(tmp_path / "base-0")])
    assert "alike.compress.pages_per_call" in ids(back, "worse")


@pytest.mark.parametrize("event", ["list_lru_add", "obj_cgroup_charge_zswap"])
def test_an_effect_that_is_missing_is_worse(tmp_path: Path, event: str) -> None:
    """One store that makes one LRU addition or charge less."""
    from tampering import Tampered

    from traces import schema

    base = record(tmp_path / "a")
    record(tmp_path / "b", Plan(release="7.4"))
    made = Tampered(tmp_path / "b")
    at = int(np.flatnonzero(made.columns["event"] == schema.CODE[event])[5])
    for name in made.columns:
        made.columns[name] = np.delete(made.columns[name], at)
    result = regress([base], [made])
    assert f"alike.effect.store.{event}" in ids(result, "worse")
    assert check_of(result, f"alike.effect.store.{event}").reason == "the same operations must have the same effects"
    assert result.alike.different == 1


def test_a_counter_that_grows_is_found_with_three_runs(tmp_path: Path) -> None:
    result = pair(tmp_path, Plan(), Plan(counters={"reject_compress_fail": 9}), runs=3)
    assert ids(result, "worse") == {"counter.zswap.reject_compress_fail"}
    check = check_of(result, "counter.zswap.reject_compress_fail")
    assert check.reason == "no run of a kernel differs from the others"
    assert change(check) == "new"
    # One run of each allows no such verdict.
    one = regress([Recording(tmp_path / "base-0")], [Recording(tmp_path / "patched-0")])
    assert "counter.zswap.reject_compress_fail" in ids(one, "inconclusive")
    assert one.of("worse") == []


def test_slower_calls_are_found_with_three_runs(tmp_path: Path) -> None:
    result = pair(tmp_path, Plan(), Plan(slow=0.5), runs=3)
    worse = ids(result, "worse")
    assert {"time.zswap_load.median", "time.zs_malloc.median", "time.zswap_store.order0.median"} <= worse
    assert all(name.startswith("time.") for name in worse)
    assert check_of(result, "time.zswap_load.median").measure.grade == "measured"
    same = pair(tmp_path / "same", Plan(), Plan(), runs=3) if (tmp_path / "same").mkdir() is None else None
    assert same is not None
    assert "time.zswap_load.median" in ids(same, "same")
    assert same.of("worse") == []


def test_an_emulator_s_times_get_no_verdict(tmp_path: Path) -> None:
    emulator = "QEMU TCG CPU version 2.5+"
    result = pair(tmp_path, Plan(cpu_model=emulator), Plan(cpu_model=emulator, slow=0.5), runs=3)
    times = [check for check in result.checks if check.measure.kind is Kind.TIME]
    assert times
    assert {check.verdict for check in times} == {"inconclusive"}
    assert result.exit_status == 0
    assert any("emulator" in note for note in result.notes)


@pytest.mark.parametrize(("manifest", "expected"), [
    ({"kernel": {}}, None), ({"kernel": {"cpu_model": "QEMU TCG CPU version 2.5+"}}, True),
    ({"kernel": {}, "capture": {"box": {"cpu_model": "AMD EPYC"}}}, False), ({"kernel": {}, "capture": 3}, None),
    ({"kernel": {}, "capture": {"box": {"cpu_model": ""}}}, None), ({"kernel": {"cpu_model": 7}}, None)])
def test_what_the_box_was(manifest: dict[str, object], expected: bool | None) -> None:
    assert emulated(manifest) is expected


# ---- the same operations ---------------------------------------------------------------------------------


def test_a_part_alike_is_compared_exactly_the_rest_is_not(tmp_path: Path) -> None:
    result = pair(tmp_path, Plan(), Plan(extra=30))
    total = len(result.base[0].operations.events)
    assert result.alike.count == total
    assert result.alike.events == (None, result.patched[0].operations.events[total])
    assert ids(result, "worse") == ids(result, "better") == set()
    assert "alike.effect.store.zs_malloc" in ids(result, "same")
    assert "effect.store.zs_malloc" in ids(result, "inconclusive")
    # The snapshot at the end is after the part that is alike in one of them only.
    assert "alike.pool.pages@middle" in ids(result, "same")
    assert "pool.pages@middle" not in {check.id for check in result.checks}
    assert any("did not do the same work" in note for note in result.notes)


def test_other_contents_are_other_operations(tmp_path: Path) -> None:
    result = regress([record(tmp_path / "a")], [record(tmp_path / "b", Plan(digests=lambda page: page[:1].hex() * 20))])
    assert result.alike.count == 0
    assert result.alike.why == "the recordings did different things from there on"
    assert result.pages.why == "no page content was stored by both kernels"


def test_keyed_digests_say_nothing_of_another_recording(tmp_path: Path) -> None:
    keys = iter((b"one", b"two"))

    def keyed() -> Plan:
        import hashlib

        key = next(keys)
        return Plan(digests=lambda page: hashlib.blake2b(page, key=key, digest_size=32).hexdigest())

    a, b = record(tmp_path / "a", keyed()), record(tmp_path / "b", keyed())
    result = regress([a], [b])
    assert result.alike.count == 0
    assert "--pages full" in result.alike.why
    assert "--pages full" in result.pages.why


def test_without_pages_or_a_start_nothing_is_alike(tmp_path: Path, samples: dict[str, Path]) -> None:
    from replay.tools.synthetic import cycle, write_recording

    write_recording(str(tmp_path / "a"), cycle(3000, seed=1))
    write_recording(str(tmp_path / "b"), cycle(3000, seed=2))
    result = regress([Recording(tmp_path / "a")], [Recording(tmp_path / "b")])
    assert "it is not known what a recording began with" in result.alike.why
    one = record(tmp_path / "c", Plan(snapshots=False))
    assert regress([one], [record(tmp_path / "d")]).alike.count == 0
    parts = [measure(Recording(tmp_path / name)).operations for name in ("a", "b")]
    known = alike(parts, ["empty", "empty"], lost=False, keyed=False)
    assert (known.count, known.why) == (0, "it was not recorded which page contents were stored")
    assert regress([Recording(samples["7.3-lz4-4k"])], [Recording(samples["7.3-zstd-64k"])]).alike.why \
        == "the recordings do not start from the same state"


@quick
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4), st.booleans())
def test_alike_is_the_common_beginning(keys: list[list[int]], lost: bool) -> None:
    parts = []
    for listed in keys:
        part = OperationSequence()
        for at, key in enumerate(listed):
            part.close(part.add(10 * at), str(key), "")
        parts.append(part)
    found = alike(parts, ["empty"] * len(parts), lost, keyed=False)
    expected = 0
    while all(expected < len(listed) and listed[expected] == keys[0][expected] for listed in keys):
        expected += 1
    assert found.count == (0 if lost else expected)
    if not lost:
        assert found.events == tuple(10 * expected if expected < len(listed) else None for listed in keys)


def test_runs_of_one_side_must_be_of_one_kernel(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a"), record(tmp_path / "b", Plan(release="7.4"))
    with pytest.raises(BadInput, match=r"is of kernel 7.4 where .* is of 7.3"):
        regress([a, b], [record(tmp_path / "c")])


def test_runs_that_differ_on_the_same_operations_tell_nothing(tmp_path: Path) -> None:
    """The kernel is not one then, whatever its name."""
    a, b, c, d = (record(tmp_path / name, Plan(longer=longer)) for name, longer in zip("abcd", (0, 3, 0, 3), strict=True))
    result = regress([a, b], [c, d])
    check = check_of(result, "alike.length.mean")
    assert (check.verdict, check.reason) == ("inconclusive", "runs of one kernel differ on the same operations")


# ---- losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [[{"cpu": 0, "lost": 5}], [{"cpu": 0, "lost": None}],
                                    [{"cpu": 0, "lost": 0, "damaged_subbuffers": 1}],
                                    [{"cpu": 0, "lost": 0}, {"probe": "zs_malloc", "lost": 2}]])
def test_with_lost_events_nothing_is_the_same(tmp_path: Path, losses: list[dict[str, object]]) -> None:
    result = pair(tmp_path, Plan(), Plan(losses=losses), runs=3)
    assert result.of("same") == []
    assert result.alike.count == 0
    assert result.exit_status == 3


def test_with_lost_events_a_counter_can_still_be_worse(tmp_path: Path) -> None:
    lost = [{"cpu": 0, "lost": 5}]
    result = pair(tmp_path, Plan(), Plan(losses=lost, longer=60, counters={"reject_compress_fail": 9}), runs=3)
    assert ids(result, "worse") == {"counter.zswap.reject_compress_fail"}
    assert result.exit_status == 1


# ---- statistics ------------------------------------------------------------------------------------------

#: Two samples with a known result: Welch's example of unequal spreads, as in R's t.test(x, y).
X = (27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4)
Y = (27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4)


def test_welch_on_known_numbers() -> None:
    tested = compare_means(KernelRuns(X), KernelRuns(Y), 0.02)
    assert tested is not None
    assert tested.p_different == pytest.approx(0.021378, abs=1e-6)
    assert tested.freedom == pytest.approx(24.988529, abs=1e-6)


@quick
@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=8), st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=8))
def test_welch_is_scipy_s_on_the_values(a: list[float], b: list[float]) -> None:
    tested = compare_means(KernelRuns(tuple(a)), KernelRuns(tuple(b)), 0.02)
    if tested is None:
        # Exactly: numpy's deviation of three equal values need not be 0.
        assert statistics.pstdev(a) + statistics.pstdev(b) < 1e-100
        return
    if min(np.std(a), np.std(b)) < 1e-6 * max(1.0, abs(np.mean(a)), abs(np.mean(b))):
        return  # There the two ways of computing a deviation differ.
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert tested.p_different == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert tested.freedom == pytest.approx(expected.df, rel=1e-6)
    # Two one-sided tests reject at 5 % where the interval of 90 % lies inside the margin.
    low, high = expected.confidence_interval(0.9)
    room = 0.02 * abs(np.mean(a))
    if tested.p_same is not None and abs(tested.p_same - 0.05) > 1e-6:
        assert (tested.p_same < 0.05) == (-room < low and high < room)


@pytest.mark.parametrize(("a", "b"), [((1.0, 2.0), (1.0, 2.0, 3.0)), ((1.0,), (2.0,)), ((5.0,) * 3, (5.0,) * 3),
                                      ((5.0,) * 3, (6.0,) * 3)])
def test_where_no_test_is_possible(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    assert compare_means(KernelRuns(a), KernelRuns(b), 0.02) is None


def test_holm_on_known_numbers() -> None:
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, None, 0.01]) == pytest.approx([0.04, None, 0.02])
    assert holm([]) == []


@quick
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=20))
def test_holm_keeps_order_and_only_raises(values: list[float | None]) -> None:
    corrected = holm(values)
    assert [value is None for value in corrected] == [value is None for value in values]
    pairs = sorted((v, c) for v, c in zip(values, corrected, strict=True) if v is not None and c is not None)
    assert all(v <= c <= 1 for v, c in pairs)
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def test_verdicts_are_seldom_wrong() -> None:
    """Of kernels that are alike, in a hundred comparisons of 20 measures each, hardly one finds a difference."""
    chance = random.Random(4)
    wrong = 0
    for _ in range(100):
        sides = [[KernelRuns(tuple(chance.gauss(100, 5) for _ in range(4))) for _ in range(20)] for _ in range(2)]
        tests = [compare_means(a, b, 0.02) for a, b in zip(*sides, strict=True)]
        corrected = holm([tested.p_different if tested else None for tested in tests])
        wrong += any(p is not None and p < 0.05 for p in corrected)
    assert wrong <= 12


# ---- output ----------------------------------------------------------------------------------------------

#: Counters have 64 bits; quotients of them are between these.
numbers = st.one_of(st.floats(-1e40, 1e40), st.integers(0, 1 << 64).map(float), st.sampled_from([0.0, -0.0, 1e-40]))


@quick
@given(st.floats(), st.sampled_from(["share", "bytes", ""]), st.integers(7, 15))
def test_numbers_keep_their_width(value: float, unit: str, width: int) -> None:
    assert 0 < len(number(value, unit, width)) <= width


@st.composite
def regressions(draw: st.DrawFn) -> Regression:
    """A result with any values and any names, as a hostile recording could have."""
    texts = st.text(max_size=60)
    checks = []
    for _ in range(draw(st.integers(0, 6))):
        made = Measure(draw(texts), draw(texts), draw(st.sampled_from(["share", "bytes", "ns"])), draw(texts),
                       draw(st.sampled_from(Better)), draw(st.sampled_from(Kind)))
        sides = [draw(st.one_of(st.none(), st.lists(numbers, min_size=1, max_size=3).map(tuple).map(KernelRuns)))
                 for _ in range(2)]
        checks.append(MeasureVerdict(made, draw(st.sampled_from([ALIKE, WHOLE, SAME_PAGES])), sides[0], sides[1],
                                     draw(st.sampled_from(["same", "better", "worse", "inconclusive"])), draw(texts)))
    runs = [Run(draw(texts), draw(texts), draw(texts), {}, orders={draw(st.integers(0, 13)): draw(st.integers(1, 99))})
            for _ in range(2)]
    return Regression([runs[0]], [runs[1]], Alike(draw(st.integers(0, 9)), (None, None), draw(texts)),
                      Pages(why=draw(texts)), checks, [], [draw(texts)], 0.02)


@settings(deadline=None, max_examples=300)
@given(regressions())
def test_a_mail_is_75_columns_of_ascii(result: Regression) -> None:
    for line in mail(result):
        assert len(line) <= MAIL_WIDTH
        assert line.isascii()
        assert line.isprintable()
        assert line == line.rstrip()


@quick
@given(regressions())
def test_the_report_takes_any_value(result: Regression) -> None:
    assert "\n".join(report(result))


def test_a_mail_of_real_recordings(samples: dict[str, Path]) -> None:
    lines = list(mail(regress([Recording(samples["7.3-lz4-4k"])], [Recording(samples["7.3-zstd-64k"])])))
    assert max(len(line) for line in lines) <= MAIL_WIDTH == 75
    text = "\n".join(lines)
    for words in ("7.3-amd64, 1 run", "lz4 (base), zstd (patched)", "none: a test needs 3 runs of each kernel",
                  "base     patched   change", "not shown, without a verdict"):
        assert words in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, plan in (("a", Plan()), ("b", Plan(longer=40))):
        record(tmp_path / name, plan)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["regress", "--base", a, "--patched", b]) == 1
    out = capsys.readouterr().out
    assert out.startswith("WORSE  7.3, 1 run, against 7.3, 1 run; lz4")
    assert "alike.length.mean" in out
    record(tmp_path / "c")
    assert main(["regress", "--base", a, "--patched", str(tmp_path / "c")]) == 3
    assert capsys.readouterr().out.startswith("UNDECIDED")
    assert main(["regress", "--base", a, "--patched", b, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "worse"
    assert {"check", "base", "patched", "change", "verdict", "better", "grade", "scope"} <= result["checks"][0].keys()
    assert main(["regress", "--base", a, "--patched", b, "--mail"]) == 1
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 75


@pytest.mark.parametrize("words", [["regress"], ["regress", "--base", "a"], ["regress", "--patched", "a"],
                                   ["regress", "--base", "nosuch", "--patched", "nosuch"],
                                   ["regress", "--b4", "--base", "a"]])
def test_wrong_use_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("zreplay: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("margin", ["-1", "nan", "inf", "x", "101"])
def test_a_margin_is_checked(margin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["regress", "--base", "a", "--patched", "b", "--margin", margin])
    assert left.value.code == 2


def test_a_margin_is_what_does_not_count(tmp_path: Path) -> None:
    """3 % slower: no change within 5 %, a change within 1 %."""
    sides = [[record(tmp_path / f"{side}{turn}", Plan(slow=slow + 0.001 * turn)) for turn in range(4)]
             for side, slow in (("a", 0.0), ("b", 0.03))]
    assert "time.zswap_load.median" in ids(regress(*sides, margin=0.05), "same")
    assert "time.zswap_load.median" in ids(regress(*sides, margin=0.01), "worse")


def test_sides_know_their_spread() -> None:
    assert KernelRuns((4.0,)).spread is None
    assert KernelRuns((0.0, 0.0)).spread is None
    assert KernelRuns((1.0, 3.0)).spread == math.sqrt(2) / 2
    assert KernelRuns((0.1, 0.1, 0.1)).mean == 0.1
