# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of events holds together, and goes with the model, the checks and the handlers that are derived from it."""

from __future__ import annotations

import ast
import itertools
import os
import re
import sys

import pytest
from conftest import ROOT

import model.page
from model.effects import DEFAULTS, UNSEEN
from replay.reference.checks import CHECKS
from replay.reference.comparer import Comparer
from replay.reference.handlers.acomp import AcompHandlers
from replay.reference.handlers.table import handler_table, handlers_of
from replay.reference.handlers.zsmalloc import ZsmallocHandlers
from replay.reference.handlers.zswap import ZswapHandlers
from replay.userrev.effectnames import shipped_sizes
from traces import events, schema
from traces.events import COLUMNS, EFFECTS, EVENTS, PROTOTYPES, ROLES

BY_NAME = {event.name: event for event in EVENTS}


def test_each_code_and_name_is_one_event_s() -> None:
    for values in ([event.code for event in EVENTS], [event.name for event in EVENTS],
                   [probe for event in EVENTS for probe in (event.probe, *event.also) if probe]):
        assert len(values) == len(set(values))
    assert all(before.code < after.code <= 255 for before, after in itertools.pairwise(EVENTS))
    assert [schema.NAMES[event.code] for event in EVENTS] == [event.name for event in EVENTS]


def test_fields_fill_columns_that_there_are() -> None:
    columns = {column.name for column in COLUMNS}
    for event in EVENTS:
        assert set(event.columns) <= columns, event.name
        for column in event.columns:
            made_of = [field for field in event.fields if field.column == column]
            # Two fields make one value of flag words, or of a name and a value; nothing else is made of two.
            assert len(made_of) == 1 or column in ("order", "text"), (event.name, column)
        assert {column for row in event.compared for column, _ in row.columns} <= set(event.columns), event.name
        assert set(event.essential) <= set(event.columns), event.name


def test_a_return_has_the_columns_of_its_value_only_where_it_is_one() -> None:
    for event in EVENTS:
        assert event.at_return == event.name.endswith("_ret")
        assert any("$retval" in field.fetch for field in event.fields) <= event.at_return, event.name


def test_what_a_probe_fetches_its_functions_have() -> None:
    for event in EVENTS:
        for field in event.fields:
            for name in re.findall(r"\$([\w|]+)", field.fetch):
                if name == "retval" or field.fetch.endswith("?"):
                    continue
                for function in event.functions:
                    assert set(name.split("|")) & set(PROTOTYPES[function].split()), (event.name, name, function)


def test_checks_and_roles_are_known_ones() -> None:
    for event in EVENTS:
        assert event.roles <= ROLES.keys()
        assert set(event.checks) <= CHECKS.keys(), event.name
        assert {row.check for row in event.compared} <= CHECKS.keys(), event.name
    assert {name for check in CHECKS.values() for name in check.needs} <= BY_NAME.keys()
    # What is in doubt without an event is said with it.
    assert all(check.id in BY_NAME[name].checks for check in CHECKS.values() for name in check.needs)


def test_the_model_yields_the_table_s_effects_and_no_others() -> None:
    assert set(shipped_sizes()) - {*DEFAULTS, *UNSEEN} == set(EFFECTS)


def test_handlers_are_of_effects() -> None:
    own = {name for part in (AcompHandlers, ZsmallocHandlers, ZswapHandlers) for name in handlers_of(part)}
    assert len(own) > 30
    assert own <= set(EFFECTS)
    # An effect without a handler is compared by its row, or has nothing to compare.
    for name in set(EFFECTS) - own:
        rows = BY_NAME[name].compared
        assert not rows or any(row.predicted for row in rows), name


def test_an_event_has_one_handler() -> None:
    class Part:
        def on_zs_malloc(self) -> None:
            """Handle it."""

    class Misspelt:
        def on_zs_mallok(self) -> None:
            """Handle what there is not."""

    comparer = Comparer.__new__(Comparer)
    with pytest.raises(TypeError, match=r"Part\.on_zs_malloc: another part handles this event"):
        handler_table((Part(), Part()), comparer)
    with pytest.raises(TypeError, match=r"Misspelt\.on_zs_mallok: there is no such effect"):
        handler_table((Misspelt(),), comparer)


def test_predictions_stand_where_effects_have_an_item() -> None:
    sizes = shipped_sizes()
    for event in EVENTS:
        for row in event.compared:
            if row.predicted:
                assert all(int(row.predicted.split(".")[0]) < size for size in sizes[event.name]), row.key


def test_a_page_is_of_one_size() -> None:
    assert model.page.PAGE_SIZE == events.PAGE_SIZE == schema.PAGE_SIZE


def test_the_recorder_can_carry_the_table() -> None:
    tree = ast.parse((ROOT / "traces" / "events.py").read_text(), feature_version=(3, 9))
    imported = {name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
                for name in ([node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])}
    assert {str(name).partition(".")[0] for name in imported} <= sys.stdlib_module_names


def written() -> list[str]:
    """Return what captures hold: each name of a probe, its event's code and name, and which field fills which column."""
    return [f"{probe} {event.code} {event.name} " + " ".join(f"{source}={field.column}" for field in event.fields
                                                             for source in field.sources)
            for event in EVENTS for probe in (event.probe, *event.also) if probe]


def test_captures_that_exist_keep_their_meaning() -> None:
    """A probe may get further fields and there may be further ones; what is written in captures and on disk stays.

    ZREPLAY_WRITE_GOLDEN=1 adds new ones to the file.
    """
    path = ROOT / "tests" / "golden" / "probes.txt"
    known = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    now = {row.split()[0]: row.split() for row in written()}
    for probe, code, name, *fields in known:
        assert probe in now, f"captures have the probe {probe}, and the table does not"
        assert now[probe][1:3] == [code, name]
        assert set(fields) <= set(now[probe][3:]), probe
    if os.environ.get("ZREPLAY_WRITE_GOLDEN"):
        path.write_text("\n".join(sorted(row.strip() for row in written())) + "\n")
    else:
        assert len(known) == len(now)
