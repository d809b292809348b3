# SPDX-License-Identifier: GPL-2.0-or-later
"""--iaa and --iaa-faults: what is read, and the one sentence for what is not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.lab.errors import LabError
from traces.lab.iaa.descriptors import Opcode
from traces.lab.iaa.faults import IaaFaultPlan, Where
from traces.lab.iaa.options import IaaOptions, nanoseconds


def test_the_issue_s_example() -> None:
    options = IaaOptions.parse("devices=2,wqs=2,engines=8,depth=128,mode=async_irq,verify=0,version=1")
    assert options == IaaOptions(2, 2, 8, 128, "async_irq", 0, 1)
    assert options.queue_size == 64


def test_nothing_said_is_what_the_driver_has_by_default() -> None:
    assert IaaOptions.parse("") == IaaOptions(mode="sync", verify=1, wqs=1, engines=8, depth=128, version=1, devices=1)


@pytest.mark.parametrize(("text", "wanted"), [
    ("device=2", "'device' is not an option"), ("devices=0", "devices=0 is not a number from 1 to 8"),
    ("devices=9", "devices=9"), ("wqs=9", "wqs=9"), ("engines=x", "engines=x"), ("depth=129", "depth=129"),
    ("depth=-1", "depth=-1"), ("version=3", "version=3"), ("verify=2", "verify=2"), ("mode=irq", "mode 'irq' does not exist"),
    ("mode", "mode has no value"), ("wqs=2,wqs=2", "wqs is given twice"), ("depth=1,wqs=2", "cannot be shared"),
    ("service=5", "service=5 is not a time"), ("service=2h", "service=2h"), ("per_kib=61s", "per_kib=61s"),
    ("depth=٣", "depth=٣"),
])
def test_what_is_out_of_range_is_one_sentence(text: str, wanted: str) -> None:
    with pytest.raises(LabError) as caught:
        IaaOptions.parse(text)
    assert wanted in str(caught.value)
    assert str(caught.value).startswith("--iaa: ")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.builds(IaaOptions, devices=st.integers(1, 8), wqs=st.integers(1, 8), engines=st.integers(1, 8), depth=st.integers(8, 128),
                 mode=st.sampled_from(["sync", "async", "async_irq"]), verify=st.integers(0, 1), version=st.integers(1, 2),
                 service=st.integers(0, 10**9), per_kib=st.integers(0, 10**9)))
def test_text_is_read_back(options: IaaOptions) -> None:
    assert IaaOptions.parse(options.text()) == options


@given(st.text(max_size=60) | st.lists(st.sampled_from(["devices", "depth", "mode", "service", "=", ",", "1", "us", "sync"]), max_size=9).map("".join))
def test_any_text_is_options_or_a_sentence(text: str) -> None:
    with suppress(LabError):
        assert 1 <= IaaOptions.parse(text).queue_size <= 128


@pytest.mark.parametrize(("text", "wanted"), [
    ("1ns", 1), ("2.5us", 2500), ("10ms", 10**7), ("60s", 6 * 10**10), ("61s", None), ("5", None), ("us", None), ("-1us", None),
    ("1e9s", None), ("9" * 40 + "s", None), (" 1us", None)])
def test_times(text: str, wanted: int | None) -> None:
    assert nanoseconds(text) == wanted


def job(operation: int = Opcode.COMPRESS, device: int = 0, queue: int = 0, since: int = 0, first: bytes = b"") -> Where:
    return Where(operation, device, queue, since, first)


def hits(plan: str, jobs: list[Where]) -> list[int]:
    """Line of the rule that each descriptor meets, 0 for none."""
    found = IaaFaultPlan.parse(plan)
    return [rule.line if (rule := found.decide(one)) else 0 for one in jobs]


@pytest.mark.parametrize(("words", "wanted"), [
    ("nth=3", [0, 0, 1, 0, 0, 0]), ("every=2", [0, 1, 0, 1, 0, 1]), ("every=2 from=2", [0, 0, 1, 0, 1, 0]),
    ("from=4", [0, 0, 0, 1, 1, 1]), ("times=2", [1, 1, 0, 0, 0, 0]), ("every=2 times=1", [0, 1, 0, 0, 0, 0]),
    ("from=3 times=2", [0, 0, 1, 1, 0, 0])])
def test_which_of_those_that_match(words: str, wanted: list[int]) -> None:
    assert hits(f"{words}: lost", [job()] * 6) == wanted


def test_which_descriptors_match() -> None:
    jobs = [job(), job(Opcode.DECOMPRESS), job(device=1), job(queue=3), job(since=2_000_000), job(first=b"MZ\0\0"), job(first=b"M")]
    for words, wanted in (("operation=decompress", [1]), ("device=1", [2]), ("queue=3", [3]), ("after=2ms", [4]), ("bytes=4d5a", [5]),
                          ("before=1ms operation=compress device=0 queue=0", [0, 5, 6]), ("", [0, 1, 2, 3, 4, 5, 6])):
        assert [k for k, hit in enumerate(hits(f"{words}: lost", jobs)) if hit] == wanted, words


def test_the_first_rule_happens_and_all_count() -> None:
    plan = "operation=compress nth=2: lost\n# a comment\n\noperation=compress every=2: status=0x24 # the same\nnth=6: reset\n"
    assert hits(plan, [job()] * 6) == [0, 1, 0, 4, 0, 4]


def test_everything_that_happens() -> None:
    plan = IaaFaultPlan.parse("\n".join([
        ": status=analytics error=bad_d_code", ": error=0x19", ": status=0x24", ": length=-1", ": length=+7", ": length=0", ": crc=wrong",
        ": page-fault=destination", ": lost", ": late=2ms", ": reorder=3 silent", ": exhaust=10ms", ": halt=flr", ": reset"]))
    rules = plan.rules
    assert [(rule.status, rule.error) for rule in rules[:3]] == [(0x0A, 12), (0x0A, 0x19), (0x24, None)]
    assert [rule.length for rule in rules[3:6]] == [("-", 1), ("+", 7), ("=", 0)]
    assert rules[6].wrong_crc
    assert rules[7].fault_at == "destination"
    assert rules[8].lost
    assert rules[9].late == 2_000_000
    assert (rules[10].reorder, rules[10].silent) == (3, True)
    assert rules[11].exhaust == 10_000_000
    assert rules[12].halt == 1
    assert rules[13].reset


@pytest.mark.parametrize(("line", "wanted"), [
    ("operation=compress", "does not say what happens"), ("operation=compress:", "does not say what happens"),
    ("operaton=compress: lost", "'operaton' is not a word left of the colon"), ("nth=1: losst", "'losst' is not a word right of the colon"),
    ("lost: nth=1", "'lost' is not a word left"), ("nth=0: lost", "nth=0 is not a number"), ("nth=1 nth=2: lost", "nth is said twice"),
    ("nth: lost", "nth has no value"), (": lost=1", "lost takes no value"), ("operation=zip: lost", "operation=zip does not exist"),
    ("device=2: lost", "device=2 is not a number from 0 to 1"), ("queue=8: lost", "queue=8"), ("bytes=4: lost", "bytes=4"),
    ("bytes=: lost", "bytes= is not"), ("after=2: lost", "after=2 is not a time"), ("after=2s before=1s: lost", "before is not later than after"),
    ("nth=1 every=2: lost", "nth names one descriptor"), (": status=0", "write lost"), (": status=success", "happens anyway"),
    (": status=0x100", "status=0x100"), (": error=nothing", "error=nothing does not exist"), (": length=x", "length=x"),
    (": crc=right", "write crc=wrong"), (": page-fault=here", "page-fault=here"), (": lost late=1ms", "lost never ends"),
    (": halt=soon", "halt=soon"), (": halt=flr reset", "exclude each other"), (": status=4 page-fault=source", "its own status"),
    (": length=1 status=4", "a job that succeeds"), (": reorder=0", "reorder=0"), ("\x1b[2J: lost", "'?[2J'")])
def test_a_bad_rule_is_one_sentence_with_its_line(line: str, wanted: str) -> None:
    with pytest.raises(LabError) as caught:
        IaaFaultPlan.parse(f"# first\n{line}", "plan.txt", 2)
    assert str(caught.value).startswith("plan.txt, line 2: ")
    assert wanted in str(caught.value)
    assert str(caught.value).isprintable()


WORDS = ["operation=", "compress", "nth=", "1", "every=3", " ", ":", "lost", "status=", "0x24", "late=", "1ms", "\n", "#", "halt=flr", "bytes=00"]


@given(st.text(max_size=80) | st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_any_text_is_a_plan_or_a_sentence(text: str) -> None:
    with suppress(LabError):
        plan = IaaFaultPlan.parse(text)
        for rule in plan.rules:
            assert rule.lost or rule.status or rule.late or rule.halt is not None
        plan.decide(job())


def test_a_plan_s_file(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    with pytest.raises(LabError, match="cannot be read"):
        IaaFaultPlan.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LabError, match="is not text"):
        IaaFaultPlan.read(path)
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(LabError, match="longer than 1 MiB"):
        IaaFaultPlan.read(path)
    path.write_text(": lost\n" * 1001)
    with pytest.raises(LabError, match="more than 1,000 rules"):
        IaaFaultPlan.read(path)
    path.write_text(": lost\n" * 1000)
    assert len(IaaFaultPlan.read(path).rules) == 1000
