# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that come from outside: what says them is compared with, what nothing says is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settingbox import SettingBox, both, check

from replay.tools.cut import cut
from traces import schema
from traces.importers import import_source
from traces.recording import Recording

_FOLIO, _OTHER, _MEMCG = 0xFFFFEA00003C1C00, 0xFFFFEA00003C1C40, 0xFFFF888004A8DF40
_LRU = 0xFFFFFFFF82345678
#: page_io.c: a folio that may not be written back stays in memory
_ACTIVATE = 0x80000


class Trace:
    """Text of ftrace, line by line, as the recording scripts' probes print it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        #: how many there were, also of those that a test removes again: time passes
        self.said = 0

    def _stamp(self) -> str:
        self.said += 1
        return f"{11.0 + 0.00001 * self.said:12.6f}"

    def add(self, event: str, where: str = "(f+0x4/0x10)", task: int = 100, **fields: Any) -> None:
        said = " ".join(f"{name}={value:#x}" if name not in ("ret", "slen", "room", "dlen", "off") else f"{name}={value}"
                        for name, value in fields.items())
        self.lines.append(f"         task-{task:<7} [000] ...1. {self._stamp()}: {event}: {where} {said}")

    def marker(self, text: str) -> None:
        self.lines.append(f"         task-99      [000] ...1. {self._stamp()}: tracing_mark_write: {text}")

    def begin(self, swpent: int = 1) -> None:
        """A folio comes to zswap."""
        for event in ("swap_out", "store"):
            self.add(event, folio=_FOLIO, fl=0x409, swp=swpent, fl1=0)

    def refused(self, swpent: int = 1) -> None:
        """obj_cgroup_may_zswap() refuses a folio, and nothing is written back; it goes to the device."""
        self.begin(swpent)
        self.add("may_zswap", ret=0)
        self.add("shrink_memcg", memcg=_MEMCG)
        self.add("wb_enabled", ret=1)
        self.add("shrink_memcg_ret", ret=-2)
        self.add("store_ret", ret=0)
        self.add("wb_enabled", ret=1)
        self.add("swapwrite", folio=_FOLIO, swp=swpent)
        self.add("swap_out_ret", ret=0)

    def kept_in_memory(self, swpent: int = 1) -> None:
        """A page does not compress, and its cgroup forbids writeback."""
        self.begin(swpent)
        self.add("may_zswap", ret=1)
        self.add("zs_total", ret=0)
        self.add("comp", pglink=_FOLIO | 2, off=0, slen=4096, room=4096)
        self.add("comp_ret", ret=-22, dlen=4096)
        self.add("wb_enabled", ret=0)
        self.add("store_ret", ret=0)
        self.add("wb_enabled", ret=0)
        self.add("swap_out_ret", ret=_ACTIVATE)

    def recording(self, tmp_path: Path) -> Recording:
        # Text has no probe that was not hit: another LRU's.
        self.add("lru_add", task=98, lru=1, item=2, nid=0, memcg=3)
        self.add("lru_add_ret", task=98, ret=1)
        source = tmp_path / "source"
        source.mkdir()
        (source / "trace.txt").write_text("# tracer: nop\n#\n" + "\n".join(self.lines) + "\n")
        out = tmp_path / "rec"
        import_source(source / "trace.txt", out, overrides={"release": "7.3.0", "compressor": "lz4",
                                                            "totalram_pages": 504108})
        return Recording(out)


def test_a_limit_that_nothing_says_is_not_compared(tmp_path: Path) -> None:
    """systemd's MemoryZSwapMax=0 on a box where nothing reports it."""
    trace = Trace()
    trace.refused()
    result = both(trace.recording(tmp_path))
    assert (result.verdict, result.divergences, result.unexplained) == ("PASS", [], 0)
    assert (check(result, "memcg.limit").compared, check(result, "memcg.writeback").compared) == (0, 0)
    assert check(result, "memcg.limit").reason.startswith("none of 1 could be compared: nothing recorded gives")


def test_writeback_that_nothing_says_is_not_compared(tmp_path: Path) -> None:
    trace = Trace()
    trace.kept_in_memory()
    result = both(trace.recording(tmp_path))
    assert (result.verdict, result.divergences) == ("PASS", [])
    assert check(result, "memcg.writeback").reason.startswith("none of 2 could be compared")


@pytest.mark.parametrize("probed", [True, False])
def test_a_limit_that_nothing_says_and_no_probe_shows(probed: bool, tmp_path: Path) -> None:
    """The next event shows whether a store was refused, where obj_cgroup_may_zswap() itself was not probed."""
    trace = Trace()
    trace.refused()
    trace.kept_in_memory(2)
    trace.lines = [line for line in trace.lines if probed or ": may_zswap:" not in line]
    result = both(trace.recording(tmp_path))
    assert (result.verdict, result.divergences) == ("PASS", [])


def test_writeback_that_nothing_says_and_no_probe_shows(tmp_path: Path) -> None:
    trace = Trace()
    trace.refused()
    trace.kept_in_memory(2)
    trace.lines = [line for line in trace.lines if ": wb_enabled:" not in line]
    result = both(trace.recording(tmp_path))
    assert (result.verdict, result.divergences) == ("PASS", [])


@pytest.mark.parametrize("on", [True, False])
def test_a_shrinker_of_which_nothing_says_whether_it_is_on(on: bool, tmp_path: Path) -> None:
    """shrinker_enabled is read before anything else: the scan's next event shows it."""
    trace = Trace()
    trace.add("shr_scan", nr=32, nid=0, memcg=_MEMCG)
    if on:
        trace.add("wb_enabled", ret=1)
    trace.add("shr_scan_ret", ret=-1)
    result = both(trace.recording(tmp_path))
    assert (result.verdict, result.divergences, result.unexplained) == ("PASS", [], 0)


# ---- every cgroup's settings, from a cgroup up to the root -------------------------------------------------------


def limited(limit: str = "8192", writeback: str = "0") -> SettingBox:
    """A box with a limit on /system.slice."""
    made = SettingBox("/system.slice", "/system.slice/a", "/system.slice/b", "/other", writeback=writeback)
    made.write("/system.slice", "max", limit)
    return made


def judged(box: SettingBox, tmp_path: Path) -> tuple[str, int, int]:
    """Return the verdict and how often limits and writeback were compared."""
    result = both(box.recording(tmp_path / "box"))
    assert result.unexplained == 0
    return result.verdict, check(result, "memcg.limit").compared, check(result, "memcg.writeback").compared


def found(box: SettingBox, tmp_path: Path) -> list[str]:
    """Return the checks that found a difference; what zsmalloc did is not on record, so that no verdict is FAIL."""
    result = both(box.recording(tmp_path / "box"))
    assert result.verdict == "UNDECIDED"
    return [divergence.check for divergence in result.divergences]


def filled(box: SettingBox) -> SettingBox:
    """/system.slice holds two pages and a bit, of both of its cgroups."""
    for number, path in enumerate(("a", "b", "a")):
        box.store(f"/system.slice/{path}", number)
    return box


def test_a_limit_on_a_parent_slice_is_a_limit(tmp_path: Path) -> None:
    box = filled(limited())
    for path in ("a", "b"):
        box.refuse(f"/system.slice/{path}", 10)
    box.store("/other", 11)
    assert judged(box, tmp_path) == ("PASS", 6, 4)


@pytest.mark.parametrize("path", ["/system.slice/a", "/system.slice/b", "/other"])
def test_a_limit_on_a_parent_slice_refuses_what_is_below_it_and_nothing_else(path: str, tmp_path: Path) -> None:
    """The kernel does the opposite: that is a finding."""
    box = filled(limited())
    (box.refuse if path == "/other" else box.store)(path, 10)
    assert found(box, tmp_path) == ["memcg.limit"]


def test_nested_slices_as_systemd_makes_them(tmp_path: Path) -> None:
    session = "/user.slice/user-0.slice/session-1.scope"
    box = SettingBox("/user.slice", "/user.slice/user-0.slice", session)
    box.store(session, 0)
    box.write("/user.slice", "max", "0")
    box.refuse(session, 1)
    box.write("/user.slice", "max", "max")
    box.write("/user.slice/user-0.slice", "max", "4K")
    box.store(session, 2)
    box.refuse(session, 3)
    box.free(session, 0)
    box.store(session, 4)
    assert judged(box, tmp_path) == ("PASS", 5, 4)


def test_a_limit_written_while_recording(tmp_path: Path) -> None:
    box = filled(limited())
    box.refuse("/system.slice/a", 10)
    box.write("/system.slice", "max", " 12K\n")
    box.store("/system.slice/a", 11)
    box.store("/system.slice/b", 14)
    box.write("/system.slice", "max", "lots", ret=-22)
    box.write("/system.slice", "max", "1", ret=-22)
    box.refuse("/system.slice/a", 12)
    box.write("/system.slice", "max", "max")
    box.store("/system.slice/a", 13)
    box.snapshot("end")
    assert judged(box, tmp_path) == ("PASS", 8, 4)


def test_new_cgroups_have_no_limit_and_those_that_go_leave_what_they_hold(tmp_path: Path) -> None:
    box = limited()
    box.create("/system.slice/c")
    for number in range(3):
        box.store("/system.slice/c", number)
    box.remove("/system.slice/c")
    # All that c was charged is its parent's.
    box.refuse("/system.slice/a", 10)
    box.free("/system.slice/c", 0, now="/system.slice")
    box.store("/system.slice/a", 11)
    box.create("/new.slice")
    box.create("/new.slice/d")
    box.write("/new.slice", "max", "0")
    box.refuse("/new.slice/d", 12, writeback=True)
    assert judged(box, tmp_path) == ("PASS", 6, 4)


def test_a_store_while_a_limit_is_being_written_may_go_either_way(tmp_path: Path) -> None:
    for number, stores in enumerate((True, False)):
        box = SettingBox("/a")
        box.enter("/a", "max", "0")
        (box.store if stores else box.refuse)("/a", 1)
        box.add("zswap_max_write_ret", 50, ret=1)
        box.refuse("/a", 2)
        result = both(box.recording(tmp_path / str(number)))
        assert (result.verdict, check(result, "memcg.limit").compared) == ("PASS", 1)
        assert check(result, "memcg.limit").reason.startswith("1 more were not compared: ")


def test_a_page_that_is_being_charged_may_count_or_not(tmp_path: Path) -> None:
    """Another CPU's charge was seen to begin; whether it was counted when the limit was looked at, nobody knows."""
    for number, stores in enumerate((True, False)):
        box = limited("4096")
        box.store("/system.slice/a", 0)
        box.store("/system.slice/b", 1, task=200, wait=True)
        (box.store if stores else box.refuse)("/system.slice/a", 2)
        box.stored("/system.slice/b", 1, 200)
        result = both(box.recording(tmp_path / str(number)))
        assert result.verdict == "PASS"
        assert check(result, "memcg.limit").compared == 2
        assert "were charging the cgroup at that moment" in check(result, "memcg.limit").reason


def test_writeback_is_forbidden_by_any_cgroup_above(tmp_path: Path) -> None:
    box = limited("0", writeback="1")
    box.refuse("/system.slice/a", 1, writeback=True)
    box.write("/system.slice", "writeback", "0\n")
    box.refuse("/system.slice/a", 2)
    box.write("/system.slice", "writeback", "2", ret=-22)
    box.write("/system.slice/a", "writeback", "1")
    box.refuse("/system.slice/a", 3)
    box.write("/", "writeback", "0")
    box.write("/system.slice", "writeback", "1")
    box.refuse("/system.slice/b", 4)
    box.param("enabled", "0")
    box.off("/system.slice/b", 5)
    assert judged(box, tmp_path) == ("PASS", 4, 9)


def test_writeback_that_a_parent_forbids_is_not_allowed(tmp_path: Path) -> None:
    box = limited("0", writeback="1")
    box.write("/system.slice", "writeback", "0")
    box.refuse("/system.slice/a", 1, writeback=True)
    assert found(box, tmp_path) == ["memcg.writeback"]


def test_the_shrinker_is_on_from_its_write_on(tmp_path: Path) -> None:
    box = SettingBox("/a", writeback="1")
    box.scan("/a", walks=False)
    box.param("shrinker_enabled", "Y\n")
    box.scan("/a", walks=True)
    box.param("shrinker_enabled", "maybe", ret=-22)
    box.scan("/a", walks=True)
    box.param("shrinker_enabled", "off")
    box.scan("/a", walks=False)
    assert judged(box, tmp_path) == ("PASS", 0, 2)


def test_settings_that_no_snapshot_says_are_not_compared(tmp_path: Path) -> None:
    box = limited()
    box.snapshots = [(ts, label, {"params": values["params"]}) for ts, label, values in box.snapshots]
    filled(box)
    box.refuse("/system.slice/a", 10)
    box.store("/system.slice/b", 11)
    assert judged(box, tmp_path) == ("PASS", 0, 0)


def test_events_that_do_not_say_whose_setting_decides_are_not_compared(tmp_path: Path) -> None:
    box = filled(limited())
    box.whose = False
    box.refuse("/system.slice/a", 10)
    assert judged(box, tmp_path) == ("PASS", 0, 0)


@pytest.mark.parametrize("missing", ["zswap_max_write", "zswap_max_write_ret"])
def test_a_limit_whose_writes_were_not_probed_is_not_compared(missing: str, tmp_path: Path) -> None:
    """It may have been changed, and changed back, between any two snapshots."""
    box = filled(limited())
    box.probes = tuple(name for name in box.probes if name != missing)
    box.rows, kept = [], box.rows
    for row in kept:
        if row["event"] != schema.CODE[missing]:
            box.rows.append(row)
    box.texts = [(at, text) for at, text in box.texts if at == 0]
    box.store("/system.slice/a", 10)
    assert judged(box, tmp_path)[:2] == ("PASS", 0)


def test_a_snapshot_that_no_write_explains_is_said(tmp_path: Path) -> None:
    """Nothing that hangs on such a setting is compared, also before; the rest is."""
    box = filled(limited())
    box.store("/system.slice/a", 10)
    box.refuse("/other", 11)
    box.limits["/system.slice"], box.limits["/other"] = "4096", "0"
    box.snapshot("end")
    result = both(box.recording(tmp_path / "box"))
    assert (result.verdict, check(result, "memcg.limit").compared) == ("UNDECIDED", 0)
    assert [reason.partition(" in snapshot")[0] for reason in result.reasons] == [
        "memory.zswap.max of cgroup /system.slice", "memory.zswap.max of cgroup /other"]
    assert check(result, "memcg.writeback").compared == 2


def test_a_parameter_that_changed_unseen_makes_nothing_of_it_a_finding(tmp_path: Path) -> None:
    """zswap was off at the end, and no write was seen: the kernel that does not store is not to blame."""
    box = SettingBox("/a")
    box.store("/a", 1)
    box.off("/a", 2)
    box.params["enabled"] = "N"
    box.snapshot("end")
    result = both(box.recording(tmp_path / "box"))
    assert result.verdict == "UNDECIDED"
    assert "parameter enabled in snapshot 'end' contradicts" in result.reasons[0]
    assert any("may be due to a parameter that changed" in reason for reason in result.reasons)


def test_a_cgroup_that_lost_its_controller_has_settings_that_nothing_says(tmp_path: Path) -> None:
    box = limited("0")
    box.refuse("/system.slice/a", 1)
    box.add("mem_cgroup_css_reset", 7, memcg=box.memcg("/system.slice"))
    box.store("/system.slice/a", 2)
    assert judged(box, tmp_path) == ("PASS", 1, 2)


def test_a_cut_begins_with_the_settings_of_its_first_event(tmp_path: Path) -> None:
    box = filled(limited())
    box.write("/system.slice/b", "writeback", "0")
    start = len(box.rows)
    box.refuse("/system.slice/a", 10)
    box.refuse("/system.slice/b", 11, writeback=False)
    box.free("/system.slice/a", 0)
    box.store("/system.slice/b", 12)
    whole = box.recording(tmp_path / "whole")
    cut(whole, str(tmp_path / "cut"), start, len(whole))
    result = both(Recording(tmp_path / "cut"))
    assert (result.verdict, check(result, "memcg.limit").compared, check(result, "memcg.writeback").compared) \
        == ("PASS", 3, 4)


# ---- recordings of before, whose workload says in markers what it writes -----------------------------------------


def marked(*markers: str) -> SettingBox:
    """A box of which nothing but these markers says what is set."""
    box = SettingBox("/a", whose=False, probes=())
    box.rows, box.texts = box.rows[:1], []
    for marker in markers:
        box.add("marker", 50, marker)
    return box


@pytest.mark.parametrize(("said", "good"), [("0", True), ("4095", True), ("4096", False), ("max", False)])
def test_a_limit_that_a_workload_says_is_compared(said: str, good: bool, tmp_path: Path) -> None:
    box = marked(f"cgroup memory.zswap.max={said}")
    box.refuse("/a", 1)
    if good:
        assert judged(box, tmp_path) == ("PASS", 1, 0)
    else:
        assert found(box, tmp_path) == ["memcg.limit"]


@pytest.mark.parametrize(("said", "good"), [("0", True), ("1", False)])
def test_writeback_that_a_workload_says_is_compared(said: str, good: bool, tmp_path: Path) -> None:
    box = marked(f"cgroup memory.zswap.writeback={said}")
    box.refuse("/a", 1)
    if good:
        # Which cgroup is walked its events did not say then, once one had its writeback off.
        assert judged(box, tmp_path) == ("PASS", 0, 1)
    else:
        assert found(box, tmp_path) == ["memcg.writeback"]


def test_what_a_marker_says_is_compared_from_there_on(tmp_path: Path) -> None:
    box = marked("phase out1")
    box.refuse("/a", 1)
    box.add("marker", 50, "cgroup memory.zswap.max=0")
    box.refuse("/a", 2)
    result = both(box.recording(tmp_path / "box"))
    assert (result.verdict, check(result, "memcg.limit").compared) == ("PASS", 1)
    assert check(result, "memcg.limit").reason.startswith("1 more were not compared: nothing recorded gives")
