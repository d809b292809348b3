# SPDX-License-Identifier: GPL-2.0-or-later
"""Two revisions on one recording, and which step of a series brought a difference."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.crypto.faults import FaultPlan
from model.crypto.layers import acomp_for
from model.revisions import REVISIONS
from model.revisions.v14 import V14
from replay.cli import main
from replay.cli.revisions import _lines, _plain
from replay.revdiff import lockstep
from replay.revdiff.bisect import bisect, series
from replay.revdiff.freerun import FreeRun, Operation, OperationOutcome
from replay.revdiff.lockstep import Cause, OutcomeDifference, Parting, broken, differs
from replay.revdiff.operations import Operations
from replay.tools.synthetic import ImaginaryKernel, config
from traces.errors import BadInput
from traces.importers import import_source
from traces.recording import RecordingWriter

TEXT = dict(known.pages())["text"]
EXACT = known.repeat_in_noise(21)


class Fixed(V14):
    """v14 with the length looked at: a page that does not shrink is not compressed."""

    def _store_unit(self, entry: Any, length: int) -> Any:
        return super()._store_unit(entry, length if 0 < length < 4096 else -22)


def record(path: Path, pages: list[bytes], slots: list[tuple[int, int]]) -> traces.Recording:
    """Return a recording of folios (slot, order) stored on 7.2 and read back, with page bytes."""
    kernel = ImaginaryKernel("mainline-7.2", pages=pages, compressor=compressor_for("lz4", "mainline-7.2"))
    for slot, order in slots:
        kernel.store(slot, order)
    for slot, order in slots:
        for page in range(1 << order):
            kernel.load(slot + page)
    made = config("mainline-7.2")
    made["config"]["compressor"] = "lz4"
    with RecordingWriter(path) as writer:
        writer.write_rows(kernel.block())
        for number in kernel.handed:
            writer.pages.add(pages[number])
        writer.close(made)
    return traces.open_recording(path)


def where_they_differ(recording: traces.Recording, one: str, other: str | type[V14]) -> Parting:
    second = ("Fixed", other) if isinstance(other, type) else (other, REVISIONS[other])
    return lockstep.run_both(recording, (one, REVISIONS[one]), second)


def test_a_revision_does_not_part_from_itself(tmp_path: Path) -> None:
    recording = record(tmp_path / "rec", [TEXT, EXACT, known.noise(4)], [(0, 0), (16, 3), (32, 4)])
    for name in REVISIONS:
        found = where_they_differ(recording, name, name)
        assert (found.causes, found.left_out, found.operations) == ([], {}, 3 + 25)


def test_software_pages_part_only_in_how_it_is_done(tmp_path: Path) -> None:
    """In the order of effects; and the tree v14 was posted for puts an object that spans two pages in a row."""
    found = where_they_differ(record(tmp_path / "rec", [TEXT, known.noise(4)], [(0, 0), (16, 4)]), "mainline-7.2", "v14")
    assert {cause.respect for cause in found.causes} == {"copies", "order"}
    assert found.problems == ([], [])


def test_an_exact_page_comes_back_as_other_bytes(tmp_path: Path) -> None:
    recording = record(tmp_path / "rec", [TEXT, EXACT], [(0, 1), (8, 0)])
    found = where_they_differ(recording, "mainline-7.2", "v14")
    assert [cause.respect for cause in found.causes] == ["data", "stored", "copies", "order"]
    data = found.causes[0]
    assert data.sentence == "a load gives the page under mainline-7.2 and other bytes under v14"
    assert (data.operations, data.first[0].operation.swpent) == (1, 1)
    (problem,) = found.problems[1]
    assert problem[0] == data.first[0].operation.event
    assert "its object holds compressed data of 4096 bytes, which the load takes for the page itself" in problem[1]
    assert found.problems[0] == []


def test_a_fix_of_the_users_own_does_not_part(tmp_path: Path) -> None:
    recording = record(tmp_path / "rec", [TEXT, EXACT], [(0, 1), (8, 0)])
    found = where_they_differ(recording, "mainline-7.2", Fixed)
    assert {cause.respect for cause in found.causes} == {"copies", "order"}
    assert found.problems == ([], [])


@pytest.mark.parametrize(("steps", "brought"), [
    (["mainline-7.0", "v14-25", "v14"], "v14"), (["mainline-6.18", "v12-22", "v12"], "v12"),
    (["mainline-7.0", "v14", "v14-25", "v14"], "v14")])
def test_the_step_that_brought_it_is_named(tmp_path: Path, steps: list[str], brought: str) -> None:
    recording = record(tmp_path / "rec", [TEXT, EXACT], [(0, 1), (8, 0)])
    found = bisect(recording, [(name, REVISIONS[name]) for name in steps])
    assert found.wanted is not None
    assert (found.brought, found.wanted.respect) == (brought, "data")
    # Batches, and with them the order of things, came with the patch before.
    order = bisect(recording, [(name, REVISIONS[name]) for name in steps], "order")
    assert order.brought == steps[1]
    assert bisect(recording, [(name, REVISIONS[name]) for name in steps], "counters").brought is None
    with pytest.raises(BadInput, match="bisect needs at least two steps"):
        bisect(recording, series("v14")[:1])


def test_operations_are_those_that_were_asked_for(tmp_path: Path) -> None:
    recording = record(tmp_path / "rec", [TEXT, EXACT], [(0, 1), (8, 0)])
    operations = Operations(recording)
    assert [(op.kind, op.swpent, op.order, len(op.pages)) for op in operations] \
        == [("writeout", 0, 1, 2), ("writeout", 8, 0, 1), ("load", 0, 0, 0), ("load", 1, 0, 0), ("load", 8, 0, 0)]
    assert operations.left_out == {}


def test_an_operation_that_there_is_not_is_refused() -> None:
    run = FreeRun(V14, lambda name: acomp_for("v14", compressor_for(name, "mainline-7.3"), FaultPlan()), compressor="lz4")
    with pytest.raises(ValueError, match="no operation is called 'sleep'"):
        run.do(Operation("sleep"))


def test_a_recording_without_pages_takes_lengths_from_it(captures: Path, tmp_path: Path) -> None:
    import_source(captures / "v14-iaa-64k", tmp_path / "rec")
    found = where_they_differ(traces.open_recording(tmp_path / "rec"), "mainline-7.2", "v14")
    # 1,923 is also how many reads of two entries a replay of it counts.
    assert [(cause.respect, cause.operations) for cause in found.causes] \
        == [("copies", 1923), ("calls", 648), ("order", 5325)]
    assert found.causes[1].sentence == ("a store of 16 pages makes 16 compress calls (16 of 1 page) under mainline-7.2 and "
                                        "2 compress calls (2 of 8 pages) under v14")
    assert found.notes == ["the recording holds no page bytes: each page compresses to its recorded length"]
    # What 18/26 loses: every page that did not fit, in a batch that says it went well.
    assert found.problems[0] == []
    assert {text for _, text in found.problems[1]} \
        == {"a compress call of 8 pages returned 0, but left the error -7 as a length"}
    assert len(found.problems[1]) == 513


def test_a_part_of_a_recording_is_refused(samples: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match="begins with pages in zswap"):
        where_they_differ(traces.open_recording(samples["7.3-zstd-64k"]), "mainline-7.2", "v14")


def test_the_commands_say_it(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sample = str(samples["7.2-lz4-edge"])
    assert main(["regress", sample, "--revision", "mainline-7.2", "--revision", "v14"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "1. a load gives the page under mainline-7.2 and other bytes under v14: 10 operations" in text
    assert "which the load takes for the page itself" in text
    assert main(["regress", sample, "--revision", "mainline-7.2", "--revision", "mainline-7.3", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["causes"] == []
    assert plain["branches"]["mainline-7.2"]["zswap_load.stored"] > 0
    assert plain["branches"]["mainline-7.2"] == plain["branches"]["mainline-7.3"]
    assert main(["bisect", sample, "--series", "v14"]) == 1
    assert capsys.readouterr().out.startswith("v14 brought it: a load gives the page under mainline-7.0")
    fix = tmp_path / "fix.py"
    fix.write_text("from model.revisions.v14 import V14\n\n\nclass Fixed(V14):\n    def _store_unit(self, entry, length):\n"
                   "        return super()._store_unit(entry, length if 0 < length < 4096 else -22)\n")
    assert main(["regress", sample, "--revision", "mainline-7.2", "--revision", f"{fix}:Fixed"]) == 0
    for wrong in (["regress", sample], ["regress", sample, "--revision", "v14"], ["bisect", sample],
                  ["regress", sample, "--revision", "v14", "--revision", "v15"], ["bisect", sample, "v14"]):
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("zreplay: ")


def test_a_fault_plan_drives_both(samples: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An error that leaves the lengths alone: v14 takes a stale one for the page's."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"faults": [{"at": "compress", "call": 3, "error": "EIO", "leave_lengths": True},
                                           {"at": "compress", "call": 100000, "error": "EIO"}]}))
    command = ["regress", str(samples["7.2-lz4-edge"]), "--revision", "mainline-7.2", "--revision"]
    assert main([*command, "v14", "--faults", str(plan)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "v14 breaks an invariant" in text
    assert "is stale: the compress call (error -5) did not write it" in text
    assert text.count("compress call 100000: -EIO (never struck: the site was asked") == 2
    plan.write_text('{"faults": [{"at": "lunch"}]}')
    assert main([*command, "v14", "--faults", str(plan)]) == 2
    assert "plan.json: " in capsys.readouterr().err
    assert main([*command, "v14", "--faults", str(tmp_path / "none.json")]) == 2


def test_a_step_that_only_does_things_otherwise_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "rec", [TEXT], [(0, 1)])
    assert main(["bisect", str(tmp_path / "rec"), "mainline-7.0", "v14-25"]) == 0
    assert capsys.readouterr().out.startswith("v14-25 brought it: ")


# ---- one cause is one way ------------------------------------------------------------------------------------------


NAMES = ("a", "b")
quick = settings(deadline=None, max_examples=100)
sizes = st.integers(1, 4095)


def store(order: int, event: int = 0) -> Operation:
    return Operation("writeout", 16, order, event=event)


@st.composite
def stores_that_charge_otherwise(draw: st.DrawFn) -> list[tuple[OperationOutcome, OperationOutcome]]:
    """Stores of which one revision charges more than the other, each another number of bytes."""
    out = []
    for event in range(draw(st.integers(1, 30))):
        order, less, more = draw(st.integers(0, 9)), draw(sizes), draw(sizes)
        out.append((OperationOutcome(store(order, event), counters={"memcg.zswap": less}),
                    OperationOutcome(store(order, event), counters={"memcg.zswap": less + more})))
    return out


def grouped(pairs: list[tuple[OperationOutcome, OperationOutcome]]) -> list[Cause]:
    causes: dict[object, Cause] = {}
    for pair in pairs:
        found = differs(*pair, NAMES)
        assert found is not None
        causes.setdefault(found.key, Cause(found, pair)).add(found)
    return list(causes.values())


@quick
@given(stores_that_charge_otherwise())
def test_sizes_are_no_causes(pairs: list[tuple[OperationOutcome, OperationOutcome]]) -> None:
    (cause,) = grouped(pairs)
    assert (cause.respect, cause.operations, cause.first) == ("counters", len(pairs), pairs[0])
    numbers = [(1 << one.operation.order, one.counters["memcg.zswap"], other.counters["memcg.zswap"]) for one, other in pairs]
    assert list(zip(cause.low, cause.high, strict=True)) == [(min(each), max(each)) for each in zip(*numbers, strict=True)]
    for low, high in zip(cause.low, cause.high, strict=True):
        assert (f"{low} to {high}" if low != high else str(low)) in cause.sentence
    if len(set(numbers)) == 1:
        assert cause.sentence == cause.difference.sentence


@quick
@given(stores_that_charge_otherwise(), stores_that_charge_otherwise())
def test_the_other_direction_is_another_cause(some: list[tuple[OperationOutcome, OperationOutcome]], others: list[tuple[OperationOutcome, OperationOutcome]]) -> None:
    turned = [(other, one) for one, other in others]
    assert [cause.operations for cause in grouped([*some, *turned])] == [len(some), len(others)]
    # And so is what else moves, and what else is done.
    loads = [(OperationOutcome(Operation("load", 1), counters=one.counters), OperationOutcome(Operation("load", 1), counters=other.counters))
             for one, other in others]
    assert [cause.operations for cause in grouped([*some, *loads])] == [len(some), len(others)]
    more = [(one, OperationOutcome(other.operation, counters={**other.counters, "stored_pages": 3})) for one, other in others]
    assert [cause.operations for cause in grouped([*some, *more])] == [len(some), len(others)]


@quick
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1))
def test_batches_of_any_size_are_one_way(orders: list[tuple[int, int]]) -> None:
    pairs = []
    for order, batch in orders:
        pages = 1 << order
        unit = min(pages, 1 << batch)
        pairs.append((OperationOutcome(store(order), calls=[1] * (pages + 1)), OperationOutcome(store(order), calls=[unit] * (pages // unit))))
    (cause,) = grouped(pairs)
    assert cause.operations == len(orders)
    assert "{" not in cause.sentence
    assert not re.search(r"(?<!to )\b1 (pages|compress calls)\b", cause.sentence)


def test_a_range_reads_well() -> None:
    pairs = [(OperationOutcome(store(order), calls=[1] * (1 << order)), OperationOutcome(store(order), calls=[8] * ((1 << order) // 8)))
             for order in (3, 4, 5)]
    (cause,) = grouped(pairs)
    assert cause.sentence == ("a store of 8 to 32 pages makes 8 to 32 compress calls of 1 page under a and 1 to 4 compress calls "
                              "of 8 pages under b")
    (one,) = grouped(pairs[:1])
    assert one.sentence == ("a store of 8 pages makes 8 compress calls (8 of 1 page) under a and 1 compress call (1 of 8 pages) "
                            "under b")


@pytest.mark.parametrize("name", ["a{", "{}", "{0}", "}x{"])
def test_any_name_can_stand_in_a_sentence(name: str) -> None:
    pairs = [(OperationOutcome(store(order), calls=[1], result=number), OperationOutcome(store(order), calls=[8], result=number + order))
             for order, number in ((0, 0), (3, 5), (3, 7))]
    for one, other in pairs:
        found = differs(one, other, (name, "b"))
        assert found is not None
        assert f"under {name} and " in found.sentence
        cause = Cause(found, (one, other))
        for number in range(2):
            cause.add(dataclasses.replace(found, sentence=str(number), values=tuple(value + number for value in found.values)))
        assert f"under {name} and " in cause.sentence


@quick
@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 4096), st.sampled_from([-5, -22])), min_size=1))
def test_invariants_are_told_once_each(found: list[tuple[int, int, int]]) -> None:
    problems = [(number, f"the page at swap entry {slot:#x} is not the page written there: {size} of 4096 bytes differ (error {err})")
                for number, (slot, size, err) in enumerate(found)]
    kinds = broken(problems)
    assert len(kinds) == len({err for _, _, err in found})
    assert sum(kind.times for kind in kinds) == len(problems)
    assert (kinds[0].event, kinds[0].sentence) == problems[0]
    assert broken([]) == []


class OneByteMore(V14):
    """Charges a byte more than it should, for every page of another length."""

    def _charge(self, entry: Any) -> Any:
        entry.length += 1
        charged = yield from super()._charge(entry)
        entry.length -= 1
        return charged


def test_a_wrong_charge_is_one_line_and_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a way for each size, and the invariant after all of them."""
    pages = [known.noise(2)[:size] + bytes(4096 - size) for size in range(40, 3900, 40)]
    recording = record(tmp_path / "rec", pages, [(16 * number, number % 5) for number in range(60)])
    found = where_they_differ(recording, "v14", OneByteMore)
    assert [cause.respect for cause in found.causes] == ["counters"] * len(found.causes)
    assert len(found.causes) <= 2
    assert sum(cause.operations for cause in found.causes) == 60
    mine = tmp_path / "mine.py"
    mine.write_text("from model.revisions.v14 import V14\n\n\nclass OneByteMore(V14):\n    def _charge(self, entry):\n"
                    "        entry.length += 1\n        charged = yield from super()._charge(entry)\n"
                    "        entry.length -= 1\n        return charged\n")
    assert main(["regress", str(tmp_path / "rec"), "--revision", "v14", "--revision", f"{mine}:OneByteMore"]) == 1
    lines = capsys.readouterr().out.splitlines()
    broken_at = next(at for at, line in enumerate(lines) if line.startswith("OneByteMore breaks an invariant"))
    assert broken_at < next(at for at, line in enumerate(lines) if line.startswith("1. "))
    assert len(lines) < 80


def test_what_a_recording_did_not_come_to_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That two revisions do the same holds for the branches that were taken, and one may take more than the other."""
    record(tmp_path / "rec", [TEXT], [(0, 0), (16, 2)])
    mine = tmp_path / "mine.py"
    mine.write_text("from model.revisions.mainline_7 import Mainline72\n\n\nclass Off(Mainline72):\n"
                    "    def zswap_load(self, folio):\n        if False:\n            yield\n"
                    "        self.reached['zswap_load.none'] += 1\n        return -2\n")
    assert main(["regress", str(tmp_path / "rec"), "--revision", "mainline-7.2", "--revision", f"{mine}:Off"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "only Off came to zswap_load.none" in text


def test_what_is_printed_is_bounded() -> None:
    operation = store(0)
    causes = [Cause(OutcomeDifference("order", f"way {number}", f"way {number}"), (OperationOutcome(operation), OperationOutcome(operation)), 2)
              for number in range(500)]
    found = Parting(("a", "b"), 1000, causes, ([], [(number, "x" * (number + 1)) for number in range(300)]))
    lines = list(_lines(found, "rec"))
    text = "\n".join(lines)
    assert "and 480 more groups, of 960 operations: --json has them all" in lines
    assert "and 280 more invariants: --json has them all" in lines
    assert text.index("b breaks an invariant once, at event 0: x") < text.index("1. way 0") < text.index("20. way 19")
    assert "21. " not in text
    assert len(_plain(found)["causes"]) == 500
