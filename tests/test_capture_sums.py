# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture's sums: every change of a file that its recorder had finished is found before the file is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_record_capture import make

from replay.verdict.losses import loss_reasons, losses_of
from traces import open_recording
from traces.errors import BadInput
from traces.importers import import_source
from traces.importers.capturesums import check_sums
from traces.record.capture import CaptureWriter
from traces.record.sums import NAME, sums

TRUTH = "phase,page,kind,sha1,swap_type,swap_offset\n"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole capture, sealed as a session seals it."""
    path = tmp_path_factory.mktemp("sealed") / "c"
    make(path, pages="full")
    (path / "truth.csv").write_text(TRUTH)
    (path / NAME).write_text(json.dumps(sums(path)))
    return path


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "c"))


def test_what_a_seal_covers(sealed: Path) -> None:
    names = set(json.loads((sealed / NAME).read_text())["files"])
    assert names == {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()} - {NAME}
    assert {"capture.json", "flushed.jsonl", "truth.csv", "formats/store", "zmeta.cpu1.raw"} <= names


def test_a_capture_seals_itself_but_for_what_goes_on(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path / "c")
    capture.write("formats/a", "b")
    (tmp_path / "c" / "truth.csv").write_text(TRUTH)
    capture.seal(growing=("truth.csv",))
    capture.close()
    assert json.loads((tmp_path / "c" / NAME).read_text()) == {"files": {"formats/a": [1, 0x71BEEFF9]}}
    (tmp_path / "c" / "truth.csv").write_text(TRUTH * 2)
    assert check_sums(tmp_path / "c") == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(sealed: Path, tmp_path: Path, data: st.DataObject) -> None:
    copied = tmp_path / "c"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(sealed, copied)
    files = sorted(path for path in copied.rglob("*") if path.is_file() and path.name != NAME and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"{path.name}: is not what the recorder wrote: its sum differs"):
        check_sums(copied)


@pytest.mark.parametrize("name", ["formats/store", "counters-001-middle.json", "capture.json", "truth.csv"])
def test_a_file_of_another_length_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    with (copy / name).open("a") as file:
        file.write("\n")
    with pytest.raises(BadInput, match=r"is not what the recorder wrote: it has .* bytes, not .* remove sums\.json"):
        import_source(copy, tmp_path / "r")
    (copy / NAME).unlink()
    assert import_source(copy, tmp_path / "r")["rows"] > 0


def test_a_ring_that_was_cut_is_read_as_far_as_its_flushes_say(copy: Path, tmp_path: Path) -> None:
    ring = copy / "zmeta.cpu0.raw"
    ring.write_bytes(ring.read_bytes()[:-1])
    notes = import_source(copy, tmp_path / "r")["notes"]
    said = "files of the capture are shorter than the recorder left them: events are whole for its first"
    assert [note.startswith(said) for note in notes if "are whole" in note] == [True]


def test_a_ring_that_lacks_a_piece_blames_no_kernel(copy: Path, tmp_path: Path) -> None:
    """A copy may lack its end, or any other piece: the replay may differ from the first event on."""
    ring = copy / "zmeta.cpu0.raw"
    ring.write_bytes(ring.read_bytes()[:512] + ring.read_bytes()[768:])
    import_source(copy, tmp_path / "r")
    recording = open_recording(tmp_path / "r")
    size = ring.stat().st_size
    why = f"zmeta.cpu0.raw holds {size:,} bytes where its recorder wrote {size + 256:,}"
    assert loss_reasons(recording.manifest).count(why) == 1
    assert [loss["why"] for loss in recording.manifest["losses"] if loss["lost"] is None] == [why]
    assert losses_of(recording, (1000, 9000), 0)[0][:3] == (1000, 9000, None)


def test_a_file_that_is_gone_leaves_the_capture_incomplete(copy: Path, tmp_path: Path) -> None:
    (copy / "truth.csv").unlink()
    said = import_source(copy, tmp_path / "r")["missing"]
    assert said[0] == "the recorder wrote truth.csv, which is missing from the capture"


def test_files_that_were_packed_or_unpacked_later_have_sums_of_their_own(copy: Path) -> None:
    import gzip

    (copy / "truth.csv.gz").write_bytes(gzip.compress((copy / "truth.csv").read_bytes()))
    (copy / "truth.csv").unlink()
    assert check_sums(copy) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": [1]}}',
                                  '{"files": {"a": [1, true]}}', '{"files": {"a": [-1, 1]}}',
                                  '{"files": {"../a": [1, 1]}}', '{"files": {"/etc/passwd": [1, 1]}}',
                                  '{"files": {"": [1, 1]}}', '{"files": {"a\\u0000": [1, 1]}}', "[" * 100000])
def test_sums_that_are_none(copy: Path, tmp_path: Path, text: str) -> None:
    (copy / NAME).write_text(text)
    with pytest.raises(BadInput, match=r"sums\.json"):
        import_source(copy, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_sums_of_a_link_are_not_taken(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (copy / "truth.csv").rename(outside)
    (copy / "truth.csv").symlink_to(outside)
    with pytest.raises(BadInput, match="symbolic link"):
        import_source(copy, tmp_path / "r")
