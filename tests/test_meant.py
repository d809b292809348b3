# SPDX-License-Identifier: GPL-2.0-or-later
"""Unknown names: suggestions of known ones; and a missing file is distinguished from an unreadable one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.cli import main
from traces.errors import BadInput
from traces.recording import Recording
from traces.suggestion import meant


@pytest.mark.parametrize(("words", "said"), [
    (["replya", "REC"], "invalid choice: 'replya' (did you mean 'replay'?) (choose from record, workload"),
    (["lab", "rnu"], "invalid choice: 'rnu' (did you mean 'run'?)"),
    (["bisect", "REC", "--series", "V14"], "invalid choice: 'V14' (did you mean 'v14'?)"),
    (["replay", "REC", "--reviison", "v14"], "zreplay replay: error: unrecognized arguments: --reviison (did you mean "
                                             "'--revision'?) v14"),
    (["info", "--jsno=1"], "--jsno=1 (did you mean '--json'?)"),
    (["replay", "REC", "--revision", "V14"], "there is no revision 'V14' (did you mean 'v14'?)"),
    (["replay", "REC", "REC", "--revision", "V14"], "there is no revision 'V14' (did you mean 'v14'?)"),
    (["report", "REC", "-o", "OUT", "--revision", "V14"], "there is no revision 'V14' (did you mean 'v14'?)"),
    (["regress", "REC", "--revision", "V14", "--revision", "v8"], "V14: is not a revision (did you mean 'v14'?)"),
    (["replay", "REC", "--check", "store.lenght"], "there is no check 'store.lenght' (did you mean 'store.length'"),
    (["replay", "REC", "REC", "--check", "store.lenght"], "there is no check 'store.lenght' (did you mean 'store.length'"),
    (["replay", "REC", "--check", "qqqqqqqq"], "there is no check 'qqqqqqqq'; see"),
    (["regress", "REC", "REC"], "two recordings, and it is not said which is the base; give --base REC [REC ...] --patched REC "
                                "[REC ...], or one REC with --revision A --revision B"),
])
def test_what_may_be_meant(words: list[str], said: str, samples: dict[str, Path], tmp_path: Path,
                           capsys: pytest.CaptureFixture[str]) -> None:
    sample = str(samples["7.2-lz4-edge"])
    words = [sample if word == "REC" else str(tmp_path / "x.html") if word == "OUT" else word for word in words]
    try:
        status: object = main(words)
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert said in capsys.readouterr().err


@given(st.text(), st.lists(st.text()))
def test_only_what_there_is_is_offered(word: str, names: list[str]) -> None:
    said = meant(word, names)
    assert not said or any(repr(name) in said for name in names)
    assert "did you mean" in meant("revision", [*names, "revisions"])


def test_no_recording_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "manifest.json").write_text("{}")
    right_stat, right_access = os.stat, os.access

    # Root may read everything: the refusal is made.
    def stat(path: object, *rest: object, **keys: object) -> object:
        if "shut" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return right_stat(path, *rest, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", lambda path, how: "closed" not in str(path) and right_access(path, how))
    for name, said in (("none", "none: does not exist; see how it is spelt"),
                       ("link", "link: is a link to gone, which does not exist"),
                       ("shut", "shut: cannot be opened (Permission denied); ask its owner"),
                       ("closed", "closed/manifest.json: cannot be read (Permission denied); ask its owner"),
                       ("empty", "empty: this is not a recording (a directory with a manifest.json)"),
                       ("file", "file: this is not a recording (a directory with a manifest.json)"),
                       ("n" * 300, "cannot be opened (File name too long)")):
        with pytest.raises(BadInput) as raised:
            Recording(tmp_path / name)
        assert said in str(raised.value)
