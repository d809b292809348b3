# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch series out of a mailbox, and a tree that it is applied to."""

from __future__ import annotations

import base64
import difflib
import gzip
import io
import os
import quopri
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces.errors import BadInput
from traces.lab.errors import LabError
from traces.lab.series import Patch, hunks, read_series, split_mailbox
from traces.lab.sourcetree import SourceTree

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed (apt install git)")

OLD = "".join(f"line {n}\n" for n in range(1, 41))


def diff(name: str, old: str | None, new: str | None) -> str:
    """What git diff prints for one file; None is a file that is not there."""
    # Not splitlines: a form feed ends no line of a file.
    rows = list(difflib.unified_diff((old or "").split("\n")[:-1], (new or "").split("\n")[:-1], f"a/{name}",
                                     f"b/{name}", lineterm=""))
    if old is None:
        rows[:1] = ["new file mode 100644", "--- /dev/null"]
    if new is None:
        rows[:1] = ["deleted file mode 100644", rows[0]]
        rows[2] = "+++ /dev/null"
    return f"diff --git a/{name} b/{name}\n" + "".join(row + "\n" for row in rows)


def mail(subject: str, text: str, encoding: str = "8bit") -> bytes:
    body = text.encode()
    if encoding == "base64":
        body = base64.encodebytes(body)
    elif encoding == "quoted-printable":
        body = quopri.encodestring(body)
    head = (f"From: A Developer <a@example.org>\nSubject: {subject}\nMessage-ID: <{abs(hash(subject))}@example.org>\n"
            f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n")
    return b"From a@example.org Mon Jan 26 03:35:37 2026\n" + head.encode() + body + b"\n"


def posted(subject: str, patch: str, encoding: str = "8bit", prose: str = "Why.") -> bytes:
    return mail(subject, f"{prose}\n\nSigned-off-by: A\n---\n mm/a.c | 2 +-\n\n{patch}-- \n2.43.0\n", encoding)


def mailbox(path: Path, *mails: bytes) -> Path:
    path.write_bytes(b"".join(mails))
    return path


def test_a_port_names_what_it_carries(tmp_path: Path) -> None:
    """Links above the patch, to a mail of the list's archive, and to nothing else."""
    prose = ("A port.\n\nLink: https://lore.kernel.org/linux-crypto/20250303.6490-15-a@example.org/\n"
             "Link: https://lore.kernel.org/r/x.1@example.org\nLink: https://example.org/other@example.org/\n"
             "See https://lore.kernel.org/all/prose@example.org/\nLink: https://lore.kernel.org/linux-mm/\n")
    below = diff("mm/a.c", OLD, changed(OLD, 4)).replace("line 2\n", "line 2\n", 1) \
        + "Link: https://lore.kernel.org/linux-mm/below@example.org/\n"
    (patch,) = read_series(mailbox(tmp_path / "m", posted("[PATCH] mm: port", below, prose=prose)))
    assert patch.carries == ("20250303.6490-15-a@example.org", "x.1@example.org")
    (plain,) = read_series(mailbox(tmp_path / "n", posted("[PATCH] mm: port", below)))
    # What it says of itself does not change the patch.
    assert (plain.carries, plain.sha256) == ((), patch.sha256)


def changed(text: str, *lines: int) -> str:
    rows = text.splitlines(keepends=True)
    for line in lines:
        rows[line - 1] = f"changed {line}\n"
    return "".join(rows)


# Mailboxes


@pytest.mark.parametrize("encoding", ["8bit", "7bit", "base64", "quoted-printable"])
def test_series_is_read_in_its_order(tmp_path: Path, encoding: str) -> None:
    first, second = diff("mm/a.c", OLD, changed(OLD, 3)), diff("mm/b.c", None, "int b;\n\tint c = 'é';\n")
    if encoding == "7bit":
        second = second.replace("é", "e")
    mails = [
        posted("[PATCH v2 2/2] mm: add b", second, encoding),
        mail("Re: [PATCH v2 1/2] mm: change a", f"> {first}\nLooks good.\n{first}", encoding),
        mail("[PATCH v2 0/2] cover", "It says\ndiff --git a/x b/x\n--- a/x\n+++ b/x\nand no more.\n", encoding),
        mail("[ANNOUNCE] nothing", "No diff.\n", encoding),
        posted("[PATCH v2\n 1/2] mm: change a", first, encoding, "From here on:\n\nFrom a line that begins so\n\n--- b\n"),
    ]
    patches = read_series(mailbox(tmp_path / "series.mbox", *mails))
    assert [(patch.number, patch.count, patch.subject) for patch in patches] == [
        (1, 2, "mm: change a"), (2, 2, "mm: add b")]
    assert [patch.files for patch in patches] == [("mm/a.c",), ("mm/b.c",)]
    assert first.encode() in patches[0].text
    assert second.encode() in patches[1].text
    assert patches[0].message_id.endswith("@example.org>")


def test_mailboxes_come_in_more_forms(tmp_path: Path) -> None:
    one = posted("[PATCH] mm: change a", diff("mm/a.c", OLD, changed(OLD, 3)))
    plain = read_series(mailbox(tmp_path / "a", one))[0]
    assert (plain.number, plain.count) == (None, None)
    for name, data in (("crlf", one.replace(b"\n", b"\r\n")), ("gz", gzip.compress(one)),
                       ("bare", one.partition(b"\n")[2])):
        assert read_series(mailbox(tmp_path / name, data)) == [plain], name
    two = read_series(mailbox(tmp_path / "two", one, posted("[PATCH] mm: again", diff("mm/a.c", OLD, OLD + "x\n"))))
    assert [patch.subject for patch in two] == ["mm: change a", "mm: again"]


@pytest.mark.parametrize(("mails", "said"), [
    ([], "holds no patch"),
    ([("Re: [PATCH 1/1] x", diff("a", OLD, OLD + "x\n"))], "holds no patch"),
    ([("[PATCH 1/3] x", diff("a", OLD, OLD + "x\n"))], "lacks patch 2, 3 of 3"),
    ([("[PATCH 2/1] x", diff("a", OLD, OLD + "x\n")), ("[PATCH 1/1] y", diff("a", OLD, OLD + "x\n"))],
     "has a patch 2 of 1"),
    ([("[PATCH 1/1] x", diff("a", OLD, OLD + "x\n")), ("[PATCH v2 1/1] x", diff("a", OLD, OLD + "y\n"))],
     "holds two patches 1/1"),
    ([("[PATCH 1/1] x", diff("a", OLD, OLD + "x\n")), ("[PATCH 2/2] x", diff("a", OLD, OLD + "y\n"))],
     "patches of 1 and of 2"),
    ([("[PATCH 1/1] x", diff("a", OLD, OLD + "x\n")), ("[PATCH] fixup", diff("a", OLD, OLD + "y\n"))],
     "without a number"),
    ([("[PATCH 1/1] x", "nothing")], "holds no diff"),
])
def test_what_is_not_one_whole_series(tmp_path: Path, mails: list[tuple[str, str]], said: str) -> None:
    path = mailbox(tmp_path / "m", *(posted(subject, text) for subject, text in mails))
    with pytest.raises(BadInput, match=said):
        read_series(path)


def test_a_mail_twice_counts_once(tmp_path: Path) -> None:
    one = posted("[PATCH 1/1] x", diff("a", OLD, OLD + "x\n"))
    assert len(read_series(mailbox(tmp_path / "m", one, one))) == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "mm/../../x", "/etc/passwd", ".git/hooks/pre-commit", "mm/.GIT/x",
                                  "mm//x", "./x", "mm/x\x1b[2J"])
def test_no_patch_leads_out_of_the_tree(tmp_path: Path, name: str) -> None:
    bad = diff("mm/a.c", OLD, OLD + "x\n").replace("mm/a.c", name)
    if name.startswith("/"):
        bad = bad.replace("a//", "/").replace("b//", "/")
    with pytest.raises(BadInput, match=r"which is not a file of the kernel's tree|no file of the kernel has such"):
        read_series(mailbox(tmp_path / "m", posted("[PATCH 1/1] x", bad)))
    for old, new in (("from", "to"), ("old", "new")):
        moved = f"diff --git a/mm/a.c b/mm/b.c\nsimilarity index 100%\nrename {old} mm/a.c\nrename {new} {name}\n"
        with pytest.raises(BadInput):
            read_series(mailbox(tmp_path / "m", posted("[PATCH 1/1] x", moved)))


@pytest.mark.parametrize(("old", "new"), [("from", "to"), ("old", "new")])
def test_renames_are_read_as_git_reads_them(tmp_path: Path, old: str, new: str) -> None:
    """By both of their names, and only where git looks for them: in a file's header."""
    moved = f"rename {old} callers of <x>, and\nrename {new} ones too\n---\ndiff --git a/mm/a.c b/mm/moved.c\n" \
            f"similarity index 100%\nrename {old} mm/a.c\nrename {new} mm/moved.c\n"
    (patch,) = read_series(mailbox(tmp_path / "m", posted("[PATCH 1/1] x", moved)))
    assert sorted(set(patch.files)) == ["mm/a.c", "mm/moved.c"]
    tree = tmp_path / "tree"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/a.c").write_text(OLD)
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tmp_path / "p").write_bytes(patch.text)
    subprocess.run(["git", "-C", tree, "apply", tmp_path / "p"], check=True)
    assert (tree / "mm/moved.c").read_text() == OLD


@pytest.mark.parametrize("line", ["new file mode 120000", "new mode 120000", "index 12ab..34cd 120000",
                                  "new file mode 160000"])
def test_no_patch_makes_links(tmp_path: Path, line: str) -> None:
    patch = diff("mm/a.c", None, "/etc\n").replace("new file mode 100644", line)
    with pytest.raises(BadInput, match="its patch makes a s"):
        read_series(mailbox(tmp_path / "m", posted("[PATCH 1/1] x", patch)))


def test_lines_of_hunks_are_no_headers(tmp_path: Path) -> None:
    # Removed and added, these look like the header of a file.
    old, new = OLD + "-- ../../x\n" + OLD, OLD + "++ ../../x\n" + OLD
    patch = read_series(mailbox(tmp_path / "m", posted("[PATCH] x", diff("mm/a.c", old, new))))[0]
    assert b"--- ../../x\n+++ ../../x\n" in patch.text
    assert patch.files == ("mm/a.c",)
    assert [(hunk.name, hunk.number, hunk.line) for hunk in hunks(patch)] == [("mm/a.c", 1, 38)]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nosuch", tmp_path):
        with pytest.raises(BadInput, match="cannot be read"):
            read_series(path)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(os.urandom(999))[:-9])
    with pytest.raises(BadInput, match="cannot be read"):
        read_series(tmp_path / "broken.gz")


_WHOLE = b"".join([posted("[PATCH 1/2] =?utf-8?q?caf=C3=A9?=", diff("mm/a.c", OLD, changed(OLD, 3, 30)), "base64"),
                   posted("[PATCH 2/2] b", diff("mm/b.c", None, OLD), "quoted-printable")])


@given(st.binary(max_size=400) | st.builds(
    lambda at, what, keep: _WHOLE[:at] + what + _WHOLE[at + keep:],
    st.integers(0, len(_WHOLE)), st.binary(max_size=40), st.integers(0, 400)))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_series_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    said = ""
    try:
        patches = read_series(path)
    except BadInput as problem:
        said, patches = str(problem), []
    assert bool(patches) != bool(said)
    assert said.isprintable()
    for patch in patches:
        assert patch.files
        assert not any(name.startswith("/") or ".." in name.split("/") for name in patch.files)
        assert patch.title().isprintable()
        hunks(patch)


@given(st.lists(st.binary(max_size=60).filter(lambda text: b"From " not in text and b"\r" not in text and text.strip()),
                min_size=1, max_size=5))
def test_messages_come_out_as_they_went_in(texts: list[bytes]) -> None:
    data = b"".join(b"From x@y Mon Jan 26 03:35:37 2026\n" + text + b"\n\n" for text in texts)
    assert [message.rstrip(b"\n") for _, message in split_mailbox(data)] == [text.rstrip(b"\n") for text in texts]


# Trees


def tree_of(tmp_path: Path, **files: str) -> SourceTree:
    tree = SourceTree(tmp_path / "build", lambda text: None)
    for name, text in files.items():
        path = tree.root / "mm" / f"{name}.c"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tree


def series(tmp_path: Path, *patches: str) -> list[Patch]:
    return read_series(mailbox(tmp_path / "m", *(posted(f"[PATCH {n + 1}/{len(patches)}] change {n + 1}", patch)
                                                 for n, patch in enumerate(patches))))


def content(tree: SourceTree) -> dict[str, str]:
    return {str(path.relative_to(tree.root)): path.read_text() for path in sorted(tree.root.rglob("*"))
            if path.is_file()}


@needs_git
def test_only_what_changed_is_written(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=OLD, b=OLD, c=OLD, gone=OLD)
    before = content(tree)
    one = diff("mm/a.c", OLD, changed(OLD, 3)) + diff("mm/b.c", OLD, changed(OLD, 4))
    two = diff("mm/b.c", changed(OLD, 4), changed(OLD, 4, 20)) + diff("mm/new.c", None, "int x;\n") \
        + diff("mm/gone.c", OLD, None)
    assert tree.apply(series(tmp_path, one, two), "linux-source-9.9") == ["mm/a.c", "mm/b.c", "mm/gone.c", "mm/new.c"]
    after = content(tree)
    assert after == {"mm/a.c": changed(OLD, 3), "mm/b.c": changed(OLD, 4, 20), "mm/c.c": OLD, "mm/new.c": "int x;\n"}
    # The same again: make must find nothing to do.
    stamps = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*.c")}
    assert tree.apply(series(tmp_path, one, two), "linux-source-9.9") == []
    assert {path: path.stat().st_mtime_ns for path in tree.root.rglob("*.c")} == stamps
    # Another last patch.
    other = diff("mm/b.c", changed(OLD, 4), changed(OLD, 4, 30)) + diff("mm/new.c", None, "int x;\n") \
        + diff("mm/gone.c", OLD, None)
    assert tree.apply(series(tmp_path, one, other), "linux-source-9.9") == ["mm/b.c"]
    assert content(tree) == after | {"mm/b.c": changed(OLD, 4, 30)}
    # None at all: the tree is its own again.
    assert tree.apply([], "linux-source-9.9") == ["mm/a.c", "mm/b.c", "mm/gone.c", "mm/new.c"]
    assert content(tree) == before


@needs_git
@pytest.mark.parametrize(("tree_has", "says"), [
    # Two lines more above: the place is found by the lines that are there.
    (lambda lines: ["new 1", "new 2", *lines[:29], "other", *lines[30:]], ": where it has 'line 30', line 32 there is 'other'"),
    (lambda lines: lines[:29], ": where it has 'line 30', the file ends"),
    (lambda lines: ["x" * 80 if line == "line 30" else line for line in lines],
     ": where it has 'line 30', line 30 there is '" + "x" * 60 + "...'"),
    (lambda lines: ["\x1b[2J" if line == "line 30" else line for line in lines],
     ": where it has 'line 30', line 30 there is '?[2J'"),
    (lambda lines: ["nothing like it"] * 40, "")])
def test_what_stands_where_a_hunk_does_not_fit(tmp_path: Path, tree_has: Callable[[list[str]], list[str]],
                                               says: str) -> None:
    tree = tree_of(tmp_path, a="\n".join(tree_has(OLD.splitlines())) + "\n")
    with pytest.raises(LabError) as problem:
        tree.apply(series(tmp_path, diff("mm/a.c", OLD, changed(OLD, 31))), "s")
    assert re.sub(r".*does not fit|; rebase.*", "", str(problem.value)) == says


@needs_git
def test_a_hunk_that_does_not_fit(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=OLD, b=OLD)
    elsewhere = changed(OLD, 30)
    good = diff("mm/b.c", OLD, changed(OLD, 4))
    bad = diff("mm/a.c", elsewhere, changed(elsewhere, 2, 31))
    before = content(tree)
    with pytest.raises(LabError) as problem:
        tree.apply(series(tmp_path, good, bad), "linux-source-9.9 9.9.1-1")
    assert str(problem.value) == (
        "patch 2/2 'change 2' does not apply to mm/a.c: hunk 2 of 2 (@@ -28,7 +28,7 @@) does not fit: where it has "
        "'changed 30', line 30 there is 'line 30'; rebase the series on linux-source-9.9 9.9.1-1, or name the source it was "
        "made for with --source")
    assert content(tree) == before
    assert not list(tree.root.parent.glob(".applying*"))
    with pytest.raises(LabError, match=r"'change 1' does not apply: s has no mm/nosuch\.c"):
        tree.apply(series(tmp_path, diff("mm/nosuch.c", OLD, OLD + "x\n")), "s")
    with pytest.raises(LabError, match=r"it makes mm/b\.c, which s has already"):
        tree.apply(series(tmp_path, diff("mm/b.c", None, "x\n")), "s")
    with pytest.raises(LabError, match="was damaged on its way"):
        tree.apply(series(tmp_path, bad.replace("\n line 3\n", "\nline 3\n")), "s")
    assert content(tree) == before


@needs_git
def test_links_of_a_tree_are_not_followed(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a=OLD)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.c").write_text(OLD)
    (tree.root / "link").symlink_to(outside)
    (tree.root / "mm/l.c").symlink_to(outside / "x.c")
    for name in ("link/x.c", "mm/l.c", "mm", "mm/a.c/b"):
        with pytest.raises(LabError, match="patch the file itself"):
            tree.apply(series(tmp_path, diff(name, OLD, OLD + "x\n")), "s")
    assert (outside / "x.c").read_text() == OLD


@needs_git
def test_a_repository_around_the_build_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git/objects").mkdir()
    (tmp_path / ".git/refs").mkdir()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    tree = tree_of(tmp_path, a=OLD)
    assert tree.apply(series(tmp_path, diff("mm/a.c", OLD, changed(OLD, 3))), "s") == ["mm/a.c"]


@needs_git
@given(st.integers(), st.sampled_from(["8bit", "base64", "quoted-printable"]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_arrives(tmp_path: Path, seed: int, encoding: str) -> None:
    drawn = random.Random(seed)
    words = ["-- a/x", "++ b/y", "", " ", "From x", "@@ -1 +1 @@", "diff --git a/q b/q", "\t", "é", "=3D", "-- ", "a\fb"]

    def text() -> str:
        return "".join(drawn.choice(words) + "\n" for _ in range(drawn.randrange(1, 40)))

    old, new = text(), text()
    if old == new:
        return
    tree = SourceTree(Path(tempfile.mkdtemp(dir=tmp_path)), lambda said: None)
    (tree.root / "mm").mkdir(parents=True)
    (tree.root / "mm/a.c").write_text(old)
    box = mailbox(tmp_path / "m", posted("[PATCH] x", diff("mm/a.c", old, new), encoding))
    tree.apply(read_series(box), "s")
    assert (tree.root / "mm/a.c").read_text() == new
    tree.apply([], "s")
    assert (tree.root / "mm/a.c").read_text() == old


# Tarballs


def tarball(path: Path, *members: tuple[str, bytes | str]) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def test_tarball_becomes_a_tree(tmp_path: Path) -> None:
    tree = SourceTree(tmp_path / "b", lambda text: None)
    tree.unpack(tarball(tmp_path / "x.tar.xz", ("linux/Kbuild", b"k"), ("linux/mm/a.c", b"a"), ("linux/l", "mm/a.c")))
    assert (tree.root / "mm/a.c").read_bytes() == b"a"
    assert (tree.root / "l").is_symlink()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["tree"]


@pytest.mark.parametrize("members", [
    [("linux/Kbuild", b"k"), ("../evil", b"x")],
    [("linux/Kbuild", b"k"), ("linux/../../evil", b"x")],
    [("linux/Kbuild", b"k"), ("linux/l", "/etc/passwd")],
    [("linux/Kbuild", b"k"), ("linux/l", "../../evil")],
    [("linux/mm/a.c", b"x")],
    [("linux/Kbuild", b"x"), ("other/x", b"x")],
])
def test_tarballs_that_are_refused(tmp_path: Path, members: list[tuple[str, bytes | str]]) -> None:
    tree = SourceTree(tmp_path / "b", lambda text: None)
    with pytest.raises(LabError, match=r"cannot be unpacked|is not one directory with a kernel's source"):
        tree.unpack(tarball(tmp_path / "x.tar.xz", *members))
    assert not tree.root.exists()
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "b").iterdir())


def test_what_is_no_tarball(tmp_path: Path) -> None:
    (tmp_path / "x.tar.xz").write_bytes(b"no tarball")
    with pytest.raises(LabError, match="cannot be unpacked"):
        SourceTree(tmp_path / "b", lambda text: None).unpack(tmp_path / "x.tar.xz")
