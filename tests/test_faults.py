# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault plan: what a rule fits, what is refused, what is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.crypto.faults import ANALYTICS_ERROR, ERRORS, SITES, FaultPlan
from model.errno import EINVAL, EIO, ENOMEM


def plan(*rules: dict[str, object]) -> FaultPlan:
    return FaultPlan.from_json(json.dumps({"faults": list(rules)}))


def test_call_strikes_once_and_counts_each_site_apart() -> None:
    faults = plan({"at": "compress", "call": 2, "error": "-EIO"})
    assert faults.hit("decompress") is None
    assert faults.hit("compress") is None
    struck = faults.hit("compress")
    assert struck is not None
    assert struck.error == EIO
    assert faults.hit("compress") is None
    assert faults.calls == {"decompress": 1, "compress": 3}
    assert faults.unused() == []


def test_every_with_times() -> None:
    faults = plan({"at": "descriptor", "every": 3, "error": "EAGAIN", "times": 2})
    assert [n for n in range(1, 13) if faults.hit("descriptor")] == [3, 6]
    assert faults.rules[0].used == 2


def test_page_strikes_each_time_it_is_among_the_units() -> None:
    faults = plan({"at": "compress", "page": 9, "error": "ENOMEM"})
    assert faults.hit("compress", page=8) is None
    assert faults.hit("compress") is None
    for first, units in ((9, 1), (9, 1), (2, 8), (9, 8)):
        struck = faults.hit("compress", page=first, units=units)
        assert struck is not None
        assert struck.error == ENOMEM
    assert faults.hit("compress", page=1, units=8) is None


def test_without_a_place_it_always_fits_and_the_first_rule_wins() -> None:
    faults = plan(
        {"at": "verify", "error": "-EINVAL", "times": 1},
        {"at": "verify", "error": "-EIO"},
        {"at": "verify", "error": "-ENOSPC"},
    )
    struck = [faults.hit("verify") for _ in range(3)]
    assert [fault.error for fault in struck if fault] == [EINVAL, EIO, EIO]
    (unused,) = faults.unused()
    assert unused == "verify always: -ENOSPC (never struck: the site was asked 3 times)"


def test_records_and_options() -> None:
    faults = plan(
        {"at": "complete", "error": "ANALYTICS_ERROR"},
        {"at": "compress", "error": "EIO", "leave_lengths": True},
        {"at": "entry_alloc_bulk", "error": "ENOMEM", "got": 3},
    )
    record, left, bulk = faults.hit("complete"), faults.hit("compress"), faults.hit("entry_alloc_bulk")
    assert record is not None
    assert record.error == ANALYTICS_ERROR
    assert left is not None
    assert left.leave_lengths
    assert bulk is not None
    assert bulk.got == 3


def test_fresh_forgets_what_was_used() -> None:
    faults = plan({"at": "complete", "call": 1, "error": "NO_COMPLETION"}, {"at": "submit", "page": 0, "error": "EIO"})
    assert faults.hit("complete")
    again = faults.fresh()
    assert again.rules == faults.rules
    assert again.rules[0].used == 0
    assert again.hit("complete")


def test_a_misspelt_site_is_refused_when_asked() -> None:
    with pytest.raises(ValueError, match="no fault site is called 'compres'"):
        FaultPlan().hit("compres")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "not a list of rules"),
        ('{"faults": [], "seed": 1}', "unknown field 'seed'"),
        ("[3]", "rule 1 of the fault plan is not an object"),
        ('[{"at": "nowhere", "error": "EIO"}]', "at is 'nowhere'"),
        ('[{"error": "EIO"}]', "at is None"),
        ('[{"at": "submit"}]', "error is None"),
        ('[{"at": "submit", "error": -5}]', "error is -5"),
        ('[{"at": "submit", "error": "EWHAT"}]', "error is 'EWHAT'"),
        ('[{"at": "submit", "error": "ANALYTICS_ERROR"}]', "is for complete"),
        ('[{"at": "submit", "error": "EIO", "call": 0}]', "call is 0"),
        ('[{"at": "submit", "error": "EIO", "call": true}]', "call is True"),
        ('[{"at": "submit", "error": "EIO", "call": 1.5}]', "call is 1.5"),
        ('[{"at": "submit", "error": "EIO", "page": -1}]', "page is -1"),
        ('[{"at": "submit", "error": "EIO", "every": 1' + "0" * 300 + "}]", "every is a number of more than 64 bits"),
        ('[{"at": "submit", "error": "EIO", "call": 1, "page": 2}]', "both call and page"),
        ('[{"at": "submit", "error": "EIO", "times": 0}]', "times is 0"),
        ('[{"at": "submit", "error": "EIO", "leave_lengths": true}]', "leave_lengths is for compress"),
        ('[{"at": "compress", "error": "EIO", "leave_lengths": 1}]', "neither true nor false"),
        ('[{"at": "submit", "error": "EIO", "got": 1}]', "got is for entry_alloc_bulk"),
        ('[{"at": "submit", "error": "EIO", "when": 1}]', "unknown field 'when'"),
        ("[" + ",".join(['{"at": "submit", "error": "EIO"}'] * 10_001) + "]", "10001 rules"),
        (" " * ((1 << 20) + 1), "characters"),
    ],
)
def test_bad_plans_are_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        FaultPlan.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_as_many_rules_as_allowed() -> None:
    rules = [{"at": "submit", "error": "EIO", "page": n} for n in range(10_000)]
    assert len(FaultPlan.from_data(rules).rules) == 10_000
    assert FaultPlan.from_json("[]" + " " * ((1 << 20) - 2)).rules == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*SITES, *ERRORS, "-EIO", "x"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["faults", "at", "call", "page", "every", "error", "times", "z"]), inner),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_read_or_refused(data: object) -> None:
    try:
        faults = FaultPlan.from_json(json.dumps(data))
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "fault plan" in said
        return
    assert FaultPlan.from_data(faults.to_data()).rules == faults.rules
    for site in SITES:
        faults.hit(site, page=1)
