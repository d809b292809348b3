# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of kernels, and how the object words of a recording are laid out whatever its kernel is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay
import traces
from replay.cli import main
from replay.reference.checks import Tally
from replay.reference.objectwords import layout_of_line
from replay.tools.cut import cut
from replay.tools.synthetic import cycle, write_recording
from replay.verdict.setup import open_engine
from traces.errors import BadInput
from traces.objectword import LAYOUTS, NEW, OLD, ObjectLayout, layout_of
from traces.record.release import kernel_line, release_line

#: uname -r of distributions and trees, and what a configuration or a boot log says
NAMES = [
    ("6.12.117+deb13-cloud-amd64", (6, 12)), ("6.12.107+deb13-amd64", (6, 12)), ("7.3-amd64", (7, 3)),  # Debian
    ("7.2.13+deb14-amd64", (7, 2)), ("6.1.0-9-amd64", (6, 1)), ("6.16.3+deb14+1-rt-arm64", (6, 16)),
    ("7.3~rc7-amd64", (7, 3)),
    ("7.3.4-200.fc45.x86_64", (7, 3)), ("7.0.0-0.rc5.250101.fc44", (7, 0)),  # Fedora, RHEL
    ("7.0.0-0.rc5.20260101git1234567.42.fc44.x86_64+debug", (7, 0)), ("6.12.0-55.9.1.el10_0.x86_64", (6, 12)),
    ("6.8.0-45-generic", (6, 8)), ("6.11.0-1013-azure-fde", (6, 11)), ("7.2.0-061200rc3-generic", (7, 2)),  # Ubuntu
    ("6.14.0-1-default", (6, 14)), ("6.4.0-150600.21-default", (6, 4)), ("7.1.2-1.g0c5b2d7-vanilla", (7, 1)),  # SUSE
    ("7.1.arch1-1", (7, 1)), ("7.1.9-arch1-1", (7, 1)), ("6.18.7-zen1-1-zen", (6, 18)), ("7.3.0-1-MANJARO", (7, 3)),
    ("6.12.23-android16-5-g1234-ab567", (6, 12)), ("6.6.30-android15-8-maybe-dirty-4k", (6, 6)),  # Android
    ("6.18.0-rc3-next-20251030", (6, 18)), ("7.3-rc7", (7, 3)), ("7.3.0-rc7", (7, 3)), ("7.3+", (7, 3)), ("7.3", (7, 3)),
    ("7.3.0-rc7-00012-gdeadbeef0123-dirty", (7, 3)), ("7.3.4_1", (7, 3)), ("7.2.13-0-lts", (7, 2)),
    ("6.6.87.2-microsoft-standard-WSL2+", (6, 6)), ("6.12.41-gentoo-dist-hardened", (6, 12)), ("7.30.1", (7, 30)),
]
NONE = ["", "7", "7.", ".3", "x7.3", "v7.3", "7.x", "07.3", "7.03", "0.3", "-7.3", "7,3", "7.3 amd64", "7.3\n", " 7.3",
        "192.168.0.1", "2026.11.29", "7.1234", "generic", "Linux version 7.3.4", "\u0667.\u0663", "mainline-7.3",
        "7.3-" + "x" * 4096]


@pytest.mark.parametrize(("release", "line"), NAMES)
def test_names_of_kernels(release: str, line: tuple[int, int]) -> None:
    assert release_line(release) == line


@pytest.mark.parametrize("text", NONE)
def test_what_is_the_name_of_no_kernel(text: str) -> None:
    assert release_line(text) is None


@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.lists(st.text()),
                 st.from_regex(r"[0-9]{0,4}\.?[0-9]{0,4}.*", fullmatch=True)))
def test_nothing_raises(value: object) -> None:
    line = release_line(value)
    assert line is None or (isinstance(value, str) and value.startswith(f"{line[0]}.{line[1]}"))


@given(st.integers(1, 99), st.integers(0, 999), st.from_regex(r"([.+~_-][a-zA-Z0-9.+~_-]{0,60})?", fullmatch=True))
def test_whatever_follows(major: int, minor: int, rest: str) -> None:
    assert release_line(f"{major}.{minor}{rest}") == (major, minor)


@pytest.mark.parametrize(("kernel", "line"), [
    ({"version": "7.3.0-rc7", "release": "7.3-amd64"}, (7, 3)), ({"version": "from a tree", "release": "7.3+"}, (7, 3)),
    ({"release": "7.2.13"}, (7, 2)), ({"version": None, "release": 7.3}, None), ({}, None)])
def test_the_line_of_a_manifest(kernel: dict[str, Any], line: tuple[int, int] | None) -> None:
    assert kernel_line(kernel) == line


# ---- object words ---------------------------------------------------------------------------------------


PLACES = st.lists(st.tuples(st.integers(1, (1 << 28) - 1), st.integers(1, 254), st.integers(0, 2047)), min_size=8,
                  max_size=40)


@given(st.sampled_from((OLD, NEW)), PLACES, st.data())
def test_a_layout_is_found_in_words(layout: ObjectLayout, places: list[tuple[int, int, int]],
                                    data: st.DataObject) -> None:
    words = np.array([layout.make(*place) for place in places], np.uint64)
    classes = np.array([number for _, number, _ in places], np.uint32)
    assert layout_of(words, classes) == layout
    # One word that says something else settles nothing.
    words[data.draw(st.integers(0, words.size - 1))] ^= np.uint64(0x1FF << 15 | 0x7FF)
    assert layout_of(words, classes) == layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_indices_of_other_architectures(layout: ObjectLayout) -> None:
    places = [(0x12345 + number, number, number % 128) for number in range(1, 255)]
    words = np.array([layout.make(*place) for place in places], np.uint64)
    found = layout_of(words, np.array([number for _, number, _ in places]))
    assert found is not None
    assert found.class_bits == layout.class_bits
    assert [int(word) & (1 << found.idx_bits) - 1 for word in words] == [index for _, _, index in places]


@pytest.mark.parametrize("layout", [OLD, NEW])
def test_what_x86_64_has(layout: ObjectLayout) -> None:
    words = np.array([layout.make(0x12345, 158, 0), layout.make(0x12346, 31, 17), layout.make(0x12347, 0, 3)], np.uint64)
    assert layout_of(words, np.array([158, 31, 0])) == layout
    assert layout_of(words[2:], np.array([0])) is None, "class 0 has clear bits in either"
    assert layout_of(words[:0], np.array([], np.int64)) is None
    assert layout_of(np.full(4, 0xFFFF_FFFF_FFFF_FFFF, np.uint64), np.full(4, 158)) is None
    assert (OLD, NEW) == ((24, 0), (15, 9)), "spec: PFN | index, PFN | class | index"
    assert [layout_of_line(line) for line in ((6, 12), (7, 2), (7, 3), (8, 0), None)] == [OLD, OLD, NEW, NEW, OLD]


def _without_word(manifest: dict[str, Any]) -> None:
    manifest["probes"]["obj_malloc_ret"]["columns"].remove("word")


@pytest.mark.parametrize("change", [lambda manifest: None, _without_word], ids=["class in the zspage", "class of a size"])
@pytest.mark.parametrize("release", [name for name, line in NAMES if line == (7, 3)] + ["7.2.13"])
def test_object_words_are_read_as_they_lie(tmp_path: Path, release: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = tmp_path / "rec"
    write_recording(str(path), cycle(600, seed=5))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["kernel"] = {"release": release}
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    recording = traces.open_recording(path)
    for engine in ("reference", "fast"):
        result = replay.replay(recording, "mainline-7.3", engine=engine)
        assert {(c.id, c.different) for c in result.checks if c.id == "zsmalloc.place"} == {("zsmalloc.place", 0)}
        said = [note for note in result.notes if "object words" in note]
        assert bool(said) == (not release.startswith("7.3")), said
    cut(recording, str(tmp_path / "cut"), 300, 500)
    part = traces.open_recording(tmp_path / "cut")
    engine_, _, _ = open_engine(part, "mainline-7.3", Tally(), pages=False)
    assert (engine_.state.idx_bits, engine_.state.class_bits) == NEW


def test_a_cut_without_allocations_keeps_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "rec"
    write_recording(str(path), cycle(600, seed=5))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["kernel"] = {"release": "7.2.13"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    cut(traces.open_recording(path), str(tmp_path / "cut"), 300, 500)
    manifest = json.loads((tmp_path / "cut/manifest.json").read_text())
    for name in ("obj_malloc_ret", "zs_malloc_ret"):
        manifest["probes"][name]["columns"].remove("obj")
    (tmp_path / "cut/manifest.json").write_text(json.dumps(manifest))
    engine, _, _ = open_engine(traces.open_recording(tmp_path / "cut"), "mainline-7.3", Tally(), pages=False)
    assert (engine.state.idx_bits, engine.state.class_bits) == NEW


def test_a_configuration_of_another_kernel_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rec"
    write_recording(str(path), cycle(300, seed=5))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["kernel"] = {"release": "7.3-amd64", "version": "7.2.13"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    recording = traces.open_recording(path)
    with pytest.raises(BadInput, match=r"configuration is that of kernel 7\.2\.13 and its release is 7\.3-amd64"):
        replay.replay(recording)
    assert replay.replay(recording, "mainline-7.3").verdict == "PASS"


@pytest.mark.parametrize("release", ["7.3-amd64", "7.3-rc7", "7.3+", "7.3.0", "7.3.4-200.fc45.x86_64"])
def test_a_store_of_debian_s_7_3(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], release: str) -> None:
    trace = captures.parent / "cases/1/trace.txt"
    if not trace.is_file():
        pytest.skip("no cases next to the captures")
    assert main(["import", str(trace), "--kernel", release, "--compressor", "lz4", "--totalram-pages", "504108",
                 "-o", str(tmp_path / "rec")]) == 0
    assert main(["replay", str(tmp_path / "rec")]) == 0, capsys.readouterr().out
