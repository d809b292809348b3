# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's tools: their packages, and which of their files go along."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from traces.lab import apt, tools
from traces.lab.cpio import members
from traces.lab.errors import LabError
from traces.lab.packages import closure


def stanza(name: str, *depends: str, provides: str = "", field: str = "Depends") -> str:
    lines = [f"Package: {name}", "Version: 1-1", f"Filename: pool/main/x/{name}.deb", "Size: 10", "SHA256: ab"]
    if depends:
        lines.append(f"{field}: {', '.join(depends)}")
    if provides:
        lines.append(f"Provides: {provides}")
    return "\n".join(lines) + "\n\n"


def names(index: str, *wanted: str, left_out: tuple[str, ...] = ()) -> list[str]:
    return [package.name for package in closure(index.splitlines(keepends=True), "trixie", wanted, left_out)]


def test_a_package_comes_with_all_it_needs() -> None:
    index = (stanza("tool", "liba (>= 2) | libz", "libb:any", "virtual") + stanza("liba", "libc6", field="Pre-Depends")
             + stanza("libb", "liba", "tool") + stanza("libc6") + stanza("real", provides="virtual (= 3), other")
             + stanza("unrelated", "nosuch"))
    assert names(index, "tool") == ["liba", "libb", "libc6", "real", "tool"]


def test_of_alternatives_the_first_there_is() -> None:
    index = stanza("tool", "nosuch | libb (<< 9) | liba") + stanza("liba") + stanza("libb")
    assert names(index, "tool") == ["libb", "tool"]


def test_what_is_left_out_brings_nothing() -> None:
    index = stanza("tool", "perl", "liba | debconf") + stanza("perl", "huge") + stanza("huge") + stanza("liba")
    assert names(index, "tool", left_out=("perl", "debconf")) == ["tool"]


@pytest.mark.parametrize("wanted", ["nosuch", "tool"])
def test_a_suite_without_it(wanted: str) -> None:
    with pytest.raises(KeyError, match="nosuch"):
        names(stanza("tool", "nosuch (>= 1)"), wanted)


def deb(tmp_path: Path, name: str, files: dict[str, str]) -> bytes:
    tree = tmp_path / "tree" / name
    for file, text in files.items():
        path = tree / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
            path.chmod(0o755)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\n"
                                         "Description: x\n")
    subprocess.run(["dpkg-deb", "-b", str(tree), str(tmp_path / "x.deb")], check=True, capture_output=True)
    return (tmp_path / "x.deb").read_bytes()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> apt.Mirror:
    """A mirror with a package for each of the tools."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    helper = tmp_path / "apt-helper"
    helper.write_text('#!/bin/sh\nwhile [ "$1" != download-file ]; do shift; done\n'
                      'cp "$2" "$3" 2>/dev/null || { echo "E: not found" >&2; exit 1; }\n')
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    monkeypatch.setattr(apt, "_signature", lambda release: "")
    pool = tmp_path / "mirror/pool"
    pool.mkdir(parents=True)
    index = ""
    contents = {"python3-bpfcc": {"usr/lib/python3/dist-packages/bcc/__init__.py": "bcc", "usr/share/doc/x": "unread",
                                  "etc/x": "unread"},
                "trace-cmd": {"usr/bin/trace-cmd": "program"},
                "busybox-static": {"usr/bin/busybox": "box", "usr/lib/x86_64-linux-gnu/libx.so": "-> libx.so.1"}}
    for name, files in contents.items():
        data = deb(tmp_path, name, files)
        (pool / f"{name}.deb").write_bytes(data)
        index += (f"Package: {name}\nVersion: 2\nFilename: pool/{name}.deb\nSize: {len(data)}\n"
                  f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n")
    packed = lzma.compress(index.encode())
    suite = tmp_path / "mirror/dists/trixie"
    (suite / "main/binary-amd64").mkdir(parents=True)
    (suite / "main/binary-amd64/Packages.xz").write_bytes(packed)
    (suite / "InRelease").write_text(f"SHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} "
                                     "main/binary-amd64/Packages.xz\n")
    return apt.Mirror(str(tmp_path / "mirror"), tmp_path / "cache", lambda text: None)


def test_the_archive(mirror: apt.Mirror, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert tools.cached_tools(cache) is None
    made = tools.fetch_tools(mirror, cache, lambda text: None)
    assert made.versions == {"busybox-static": "2", "python3-bpfcc": "2", "trace-cmd": "2"}
    found = {member.name: member for member in members(made.archive.read_bytes())}
    assert found["tools/usr/bin/trace-cmd"].data == b"program"
    assert found["tools/usr/bin/trace-cmd"].mode == stat.S_IFREG | 0o755
    assert found["tools/usr/lib/python3/dist-packages/bcc/__init__.py"].data == b"bcc"
    assert found["tools/usr/lib/x86_64-linux-gnu/libx.so"].data == b"libx.so.1"
    assert stat.S_ISLNK(found["tools/usr/lib/x86_64-linux-gnu/libx.so"].mode)
    assert found["tools/lib"].data == b"usr/lib"
    assert found["tools/usr/bin/mkswap"].data == b"busybox"
    assert not [member for member in found.values() if member.data == b"unread"]
    shutil.rmtree(tmp_path / "mirror")
    assert tools.fetch_tools(mirror, cache, lambda text: None) == made, "from the cache"
    assert not [path for path in cache.iterdir() if path.name.startswith(".tools")]


def test_an_archive_that_was_changed(mirror: apt.Mirror, tmp_path: Path) -> None:
    made = tools.fetch_tools(mirror, tmp_path / "cache", lambda text: None)
    os.truncate(made.archive, 100)
    with pytest.raises(LabError, match="was changed since it was made"):
        tools.cached_tools(tmp_path / "cache")


def test_a_package_that_is_not_what_the_index_names(mirror: apt.Mirror, tmp_path: Path) -> None:
    (tmp_path / "mirror/pool/trace-cmd.deb").write_bytes(b"evil")
    with pytest.raises(LabError, match="is not the file that the index names"):
        tools.fetch_tools(mirror, tmp_path / "cache", lambda text: None)
    assert not (tmp_path / "cache/tools").exists()
