# SPDX-License-Identifier: GPL-2.0-or-later
"""model/lines.py: the table of kernel lines is whole, the revisions have it, and docs/kernel-lines.md says the same."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import replay
import traces
from model.crypto import KERNEL_LINES, compressor_for
from model.crypto.layers import LAYERS
from model.lines import CHANGES, LINES, NEWEST, KernelLine, attributes, line_named, line_of
from model.revisions import MAINLINE, POSTED, REVISIONS
from model.revisions.pool_create import POOL_CREATE, PoolCreate70, PoolCreate71
from model.zswap import Zswap
from replay.fast.eligible import compiled_base
from replay.tools.synthetic import ImaginaryKernel, config, cycle, write_recording
from replay.verdict.lineevidence import evidence, line_hint, line_notes
from traces.errors import BadInput
from traces.recording import RecordingWriter

PAGE = ROOT / "docs/kernel-lines.md"
EVERY = list(LINES)
NAMES = [field.name for field in fields(KernelLine)]


# ---- the table ----------------------------------------------------------------------------------------------


def test_each_line_names_every_field() -> None:
    assert all(field.default is MISSING and field.default_factory is MISSING for field in fields(KernelLine))
    tree = ast.parse((ROOT / "model/lines.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
             and node.func.id == "KernelLine"]
    assert [[keyword.arg for keyword in call.keywords] for call in calls] == [NAMES] * len(LINES)
    assert not any(call.args for call in calls)
    for name, line in LINES.items():
        assert line.name == name
        assert re.match(rf"{re.escape(name)}(?!\d)", line.version)
    assert list(LINES.values()) == sorted(LINES.values(), key=lambda line: line.number)
    assert list(LINES.values())[-1] is NEWEST


def test_each_difference_has_its_commit_or_says_that_it_has_none() -> None:
    found = {(after.name, field) for before, after in pairwise(LINES.values()) for field in NAMES
             if field not in ("name", "version") and getattr(before, field) != getattr(after, field)}
    assert found == set(CHANGES)
    for (line, field), changes in CHANGES.items():
        assert changes, (line, field)
        for change in changes:
            assert change.what, (line, field)
            if change.commit is None:
                assert change.what.startswith(("not found: ", "no commit: ", "nothing that is modelled: ")), change
                assert change.release is None or change.what.startswith("not found: "), change
            else:
                assert re.fullmatch(r"[0-9a-f]{12}", change.commit), change
                assert re.fullmatch(r"[67]\.\d+", change.release or ""), change
            if change.release is not None:
                # Not older than the line before; younger than the line itself where the stable tree has it.
                before = EVERY[EVERY.index(line) - 1]
                assert tuple(map(int, change.release.split("."))) > LINES[before].number, (line, field, change)


def test_one_commit_is_described_in_one_way() -> None:
    said: dict[str, set[tuple[str, str | None]]] = {}
    for changes in CHANGES.values():
        for change in changes:
            if change.commit is not None:
                said.setdefault(change.commit, set()).add((change.what, change.release))
    assert len(said) > 20
    assert {commit: words for commit, words in said.items() if len(words) > 1} == {}


@pytest.mark.parametrize("name", EVERY)
def test_a_revision_has_what_its_line_has(name: str) -> None:
    line, kind = LINES[name], MAINLINE[f"mainline-{name}"]
    expected = {field: getattr(line, field) for field in NAMES if field.isupper()} | {
        "mirrors": f"Linux {line.version} mm/zswap.c, mm/zsmalloc.c", "kernel_line": line.kernel_line,
        "crypto_layer": line.crypto_layer}
    assert attributes(line) == expected
    assert {field: getattr(kind, field) for field in expected} == expected
    model = kind(totalram_pages=1 << 18, compressor="lz4")
    assert {field: getattr(model, field) for field in expected} == expected
    assert model.pools[0].zs_pool.compaction_trylocks == line.COMPACTION_TRYLOCKS


def test_there_is_a_revision_for_each_line_and_no_other() -> None:
    assert list(MAINLINE) == [f"mainline-{name}" for name in LINES]
    assert attributes(NEWEST) == {field: getattr(Zswap, field) for field in attributes(NEWEST)}


def test_a_line_is_written_in_the_table_alone() -> None:
    """No mainline class types a field of the table a second time."""
    for path in sorted((ROOT / "model/revisions").glob("mainline_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assigned = {target.id for part in node.body if isinstance(part, ast.Assign)
                            for target in part.targets if isinstance(target, ast.Name)}
                assert not assigned & {*NAMES, "mirrors"}, (path.name, node.name)


def test_every_field_of_the_table_is_asked_for() -> None:
    """A field that no code reads would be a fact that nothing holds to."""
    text = "".join(path.read_text() for folder in ("model", "replay") for path in (ROOT / folder).rglob("*.py")
                   if path.name != "lines.py")
    unread = [name for name in NAMES if name not in ("name", "version")
              and not re.search(rf"\.{name}\b|\"{name}\"", text)]
    assert unread == []


def test_what_else_follows_from_the_table() -> None:
    assert KERNEL_LINES == ("mainline-6.12", "mainline-6.18", "mainline-7.0", "mainline-7.2", "mainline-7.3")
    assert {line.crypto_layer for line in LINES.values()} <= set(LAYERS)
    assert [POOL_CREATE[f"mainline-{name}"] for name in LINES] == [PoolCreate70] * 3 + [PoolCreate71] * 3
    assert [line_named(name).name for name in MAINLINE] == EVERY
    with pytest.raises(KeyError):
        line_named("v14")
    for name in KERNEL_LINES:
        assert compressor_for("deflate", name).ident.split("err=")[1].startswith(str(line_named(name).deflate_full))


@pytest.mark.parametrize(("number", "name"), [
    ((6, 1), None), ((6, 12), "6.12"), ((6, 17), "6.12"), ((6, 18), "6.18"), ((6, 19), "6.18"), ((7, 1), "7.1"),
    ((7, 3), "7.3"), ((7, 30), "7.3"), ((8, 0), "7.3"), (None, None)])
def test_the_line_of_a_kernel(number: tuple[int, int] | None, name: str | None) -> None:
    line = line_of(number)
    assert (line.name if line is not None else None) == name


#: what compiled code reads from the revision at hand, and what only free runs of a model ask for
COMPILED = {"ROOT_OBJCG", "HAS_INCOMPRESSIBLE", "HAS_MTHP_ZSWPOUT", "SHRINK_BUDGET"}
NOT_REPLAYED = {"SG_READS", "READS_SLOTS", "DEST_PAGES"}


@pytest.mark.parametrize("field", [name for name in NAMES if name.isupper()])
def test_compiled_code_judges_no_field_that_it_does_not_read(field: str) -> None:
    """A revision of one's own that has another value is the reference's to replay, unless compiled code knows it."""
    value = getattr(MAINLINE["mainline-7.2"], field)
    kind = type("Mine", (MAINLINE["mainline-7.2"],), {field: not value if isinstance(value, bool) else value + 1})
    base, step = compiled_base(kind)
    assert (base is not None) == (field in COMPILED | NOT_REPLAYED), step


@pytest.mark.parametrize("revision", POSTED)
def test_a_posting_stands_on_a_line(revision: str) -> None:
    assert REVISIONS[revision].kernel_line in KERNEL_LINES


# ---- what a recording shows comes before its release ----------------------------------------------------------


def recorded(tmp_path: Path, change: Callable[[dict[str, Any]], None],
             snapshot: dict[str, Any] | None = None) -> traces.Recording:
    """Return a little recording of the newest line, with its manifest changed and a snapshot."""
    path = tmp_path / "rec"
    write_recording(str(path), cycle(200, seed=3))
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    made = config()
    with RecordingWriter(str(tmp_path / "again")) as writer:
        writer.write_rows(cycle(200, seed=3), [])
        if snapshot is not None:
            writer.add_snapshot("begin", 1, snapshot)
        writer.close(made | {key: manifest[key] for key in ("kernel", "probes")})
    return traces.open_recording(tmp_path / "again")


def _reads(function: str, release: str = "7.3.0") -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["probes"]["zs_obj_read"]["function"] = function
        manifest["kernel"] = {"release": release}
    return change


@pytest.mark.parametrize(("function", "lines"), [
    ("zs_map_object", ["6.12"]), ("zs_obj_read_begin", ["6.18"]),
    ("zs_obj_read_sg_begin", ["7.0", "7.1", "7.2", "7.3"])])
@pytest.mark.parametrize("release", EVERY)
def test_a_probe_that_another_line_has_is_reported(tmp_path: Path, function: str, lines: list[str], release: str) -> None:
    recording = recorded(tmp_path, _reads(function, f"{release}.0"))
    notes = line_notes(recording)
    assert bool(notes) == (release not in lines)
    if notes:
        assert notes == [f"objects were read by {function}(), as in Linux {', '.join(lines)}, and the release is one of "
                         f"{release}: if another kernel ran, name its revision with --revision"]
        assert notes[0] in replay.replay(recording, "mainline-7.3", pages=False).notes


@pytest.mark.parametrize(("snapshot", "field", "value"), [
    ({"zswap_debugfs": {"stored_incompressible_pages": "0\n"}}, "HAS_INCOMPRESSIBLE", True),
    ({"zswap_debugfs": {"decompress_fail": "0\n"}}, "DECOMPRESS_FAILS", True),
    ({"memcg": {"memory.stat": "anon 1\nzswap_incomp 0\n"}}, "ROOT_OBJCG", True)])
def test_a_counter_that_another_line_has_is_reported(tmp_path: Path, snapshot: dict[str, Any], field: str,
                                                 value: object) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["kernel"] = {"release": "6.12.99"}

    recording = recorded(tmp_path, change, snapshot)
    shown = [each for each in evidence(recording) if field in each.fields]
    assert [each.fields for each in shown] == [{field: value}]
    assert [name for name, line in LINES.items() if shown[0].fits(line)] == [
        name for name, line in LINES.items() if getattr(line, field) == value]
    assert len(line_notes(recording)) == 1


def test_an_unknown_release_says_what_the_recording_shows(tmp_path: Path) -> None:
    recording = recorded(tmp_path, _reads("zs_map_object", "6.14.3"))
    assert line_notes(recording) == [], "of a release between two lines nothing is expected"
    assert line_hint(recording) == " (its probes and counters are those of Linux 6.12)"
    with pytest.raises(BadInput) as caught:
        replay.replay(recording, pages=False)
    assert "no revision mirrors its kernel (6.14.3)" in str(caught.value)
    assert "(its probes and counters are those of Linux 6.12)" in str(caught.value)
    (tmp_path / "none").mkdir()
    assert line_hint(recorded(tmp_path / "none", _reads("zs_obj_read", "6.14.3"))) == "", "a probe that shows nothing"


@pytest.mark.parametrize("hit", [True, False])
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_writeback_that_a_build_inlines_or_not(tmp_path: Path, engine: str, hit: bool) -> None:
    """zswap_writeback_entry() is static: the compiler decides whether a probe sees it, not the kernel line.

    A probe may also sit on a copy of the function that is never called: then it is never hit.
    """
    kernel = ImaginaryKernel("mainline-7.3")
    kernel.model.WRITEBACK_APART = hit
    for slot in range(40):
        kernel.store(slot)
    kernel.do(kernel.model.shrink_memcg(0))
    kernel.do(kernel.model.shrink_memcg(0))
    assert kernel.model.counters.written_back_pages
    probes = config()["probes"]
    apart = {name: {"columns": ["ret"] if name.endswith("_ret") else ["entry", "swpent"], "function": name}
             for name in ("zswap_writeback_entry", "zswap_writeback_entry_ret")}
    assert not apart.keys() & probes.keys()
    with RecordingWriter(str(tmp_path / "rec")) as writer:
        writer.write_rows(kernel.block(), [])
        writer.close(config() | {"probes": probes | apart})
    result = replay.replay(traces.open_recording(tmp_path / "rec"), pages=False, engine=engine)
    assert [each.as_dict() if hasattr(each, "as_dict") else each for each in result.divergences] == []
    assert {check.id: check.compared for check in result.checks}["load.result"]


# ---- the page -------------------------------------------------------------------------------------------------


def _value(value: object) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def meanings() -> dict[str, str]:
    """Return what model/lines.py says of each field above it."""
    found: dict[str, str] = {}
    said: list[str] = []
    for line in (ROOT / "model/lines.py").read_text().splitlines():
        if line.startswith("    #: "):
            said.append(line.removeprefix("    #: "))
        else:
            field = re.match(r"    (\w+): ", line)
            if field and said:
                found[field[1]] = re.sub(r":\w+:`([^`]+)`", r"`\1`", " ".join(said))
            said = []
    return found


def tables() -> str:
    """Return the tables of docs/kernel-lines.md, as the table in model/lines.py has them."""
    rows = [name for name in NAMES if name not in ("name", "version")]
    what = [f"- `{name}`: {meanings()[name]}" for name in rows]
    head = [f"| | {' | '.join(EVERY)} |", f"|---|{'---|' * len(EVERY)}",
            f"| read in | {' | '.join(line.version for line in LINES.values())} |"]
    head += [f"| `{name}` | {' | '.join(_value(getattr(line, name)) for line in LINES.values())} |"
             for name in rows]
    commits = ["| line | differs in | commit | first in | what it changes |", "|---|---|---|---|---|"]
    for name in EVERY[1:]:
        of_line: dict[Any, list[str]] = {}
        for (line, field), changes in CHANGES.items():
            for change in changes if line == name else ():
                of_line.setdefault(change, []).append(f"`{field}`")
        commits += [f"| {name} | {', '.join(names)} | {f'`{change.commit}`' if change.commit else '-'} | "
                 f"{change.release or '-'} | {change.what} |" for change, names in of_line.items()]
    return "\n".join([*head, "", *what, "", "## Which commit brought it", "", *commits])


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text()
    parts = re.split(r"(<!-- (?:begin|end): model/lines.py -->\n)", text)
    assert len(parts) == 5, "one part of the page is written by this test"
    if os.environ.get("ZREPLAY_WRITE_GOLDEN"):
        parts[2] = tables() + "\n"
        PAGE.write_text("".join(parts))
    assert parts[2] == tables() + "\n", "ZREPLAY_WRITE_GOLDEN=1 writes it anew"
