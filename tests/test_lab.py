# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab without QEMU: archives, indexes, the choice of packages, the channel, deaths. And with it: ``-m lab``."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import lzma
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import textwrap
from argparse import ArgumentParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import lab as verb
from replay.cli import labcommon
from replay.cli.labcommon import Shelf, job_of
from traces.lab import apt, guestcommon, kernels
from traces.lab.channel import Receiver, Sender
from traces.lab.cpio import CpioWriter, members
from traces.lab.errors import GuestDied, LabError
from traces.lab.initramfs import build, content_archive, job_archive, stdlib_imports
from traces.lab.kernels import BootKernel
from traces.lab.packages import (
    KernelPackages,
    Package,
    compare_versions,
    kernels_in,
    parse_index,
    pick,
    release_digests,
)
from traces.lab.qemu import Machine, boot, memory_mib, tail
from traces.lab.run import GuestJob, run

# Archives


def test_cpio_is_read_back() -> None:
    archive = CpioWriter()
    archive.file("a/b/c.txt", b"hello", 0o755)
    archive.file("a/b/c.txt", b"later")
    archive.symlink("bin/sh", "busybox")
    archive.device("dev/console", 5, 1)
    archive.directory("proc")
    archive.file("odd", b"x" * 4097)
    data = archive.finish()
    assert len(data) % 4 == 0
    found = {member.name: member for member in members(data)}
    assert list(found) == ["a", "a/b", "a/b/c.txt", "bin", "bin/sh", "dev", "dev/console", "proc", "odd"]
    assert found["a/b/c.txt"].data == b"hello"
    assert stat.S_ISDIR(found["a"].mode)
    assert found["a/b/c.txt"].mode == stat.S_IFREG | 0o755
    assert found["bin/sh"].data == b"busybox"
    assert stat.S_ISLNK(found["bin/sh"].mode)
    assert found["dev/console"].device == (5, 1)
    assert found["odd"].data == b"x" * 4097


def test_cpio_agrees_with_the_tool() -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    archive = CpioWriter()
    archive.file("a/b", b"hello")
    out = subprocess.run(["cpio", "-t", "--quiet"], input=archive.finish(), capture_output=True, check=True)
    assert out.stdout.split() == [b"a", b"a/b"]


@pytest.mark.parametrize("data", [b"", b"070701", b"x" * 200])
def test_no_cpio(data: bytes) -> None:
    with pytest.raises(ValueError, match="no newc header"):
        list(members(data))


# Indexes

_INDEX = """\
Package: linux-image-6.12.107+deb13-amd64
Version: 6.12.107-1
Filename: pool/main/l/linux-signed-amd64/linux-image-6.12.107+deb13-amd64_6.12.107-1_amd64.deb
Size: 107898972
SHA256: aa
Description: an image
 that continues
 Filename: in its description

Package: linux-image-6.12.107+deb13-cloud-amd64
Version: 6.12.107-1
Filename: pool/main/l/linux-signed-amd64/cloud.deb
Size: 107898972

Package: linux-image-6.12.107+deb13-amd64-unsigned
Version: 6.12.107-1
Filename: pool/main/l/linux/unsigned.deb
Size: 107898972

Package: linux-image-7.2.13+deb14-amd64
Version: 7.2.13-1
Filename: pool/main/l/linux-signed-amd64/meta.deb
Size: 2048

Package: linux-binary-7.2.13+deb14-amd64
Version: 7.2.13-1
Filename: pool/main/l/linux-signed-amd64/binary.deb
Size: 14252084
SHA256: bb

Package: linux-modules-7.2.13+deb14-amd64
Version: 7.2.13-1
Filename: pool/main/l/linux/modules.deb
Size: 110095088
SHA256: cc

Package: linux-base-7.2.13+deb14-amd64
Version: 7.2.13-1
Filename: pool/main/l/linux/base.deb
Size: 469412
SHA256: dd

Package: linux-binary-7.0.13+deb13-amd64
Version: 7.0.13-1~bpo13+1
Filename: pool/main/l/linux-signed-amd64/binary70.deb
Size: 13647872
SHA256: ee

Package: linux-image-7.0-amd64
Version: 7.0-1
Filename: pool/main/l/../../../etc/passwd.deb
Size: 107898972

Package: hello
Version: 1
Filename: pool/main/h/hello.deb
Size: 1
"""


def test_index_is_parsed() -> None:
    packages = list(parse_index(_INDEX.splitlines(keepends=True), "sid"))
    assert [package.name for package in packages] == [
        "linux-image-6.12.107+deb13-amd64", "linux-image-7.2.13+deb14-amd64", "linux-binary-7.2.13+deb14-amd64",
        "linux-modules-7.2.13+deb14-amd64", "linux-base-7.2.13+deb14-amd64", "linux-binary-7.0.13+deb13-amd64"]
    assert packages[0] == Package(
        "linux-image-6.12.107+deb13-amd64", "6.12.107-1",
        "pool/main/l/linux-signed-amd64/linux-image-6.12.107+deb13-amd64_6.12.107-1_amd64.deb", 107898972, "aa", "sid")


def test_kernels_are_put_together() -> None:
    found = kernels_in(parse_index(_INDEX.splitlines(), "sid"))
    assert [(kernel.release, [package.name.split("-")[1] for package in kernel.packages]) for kernel in found] == [
        ("6.12.107+deb13-amd64", ["image"]),
        ("7.0.13+deb13-amd64", ["binary", "modules", "base"]),
        ("7.2.13+deb14-amd64", ["binary", "modules", "base"])]
    # What the index no longer names is looked for in the pool, and nothing vouches for it.
    pool = found[1].packages[1]
    assert pool.filename \
        == "pool/main/l/linux/linux-modules-7.0.13+deb13-amd64_7.0.13-1~bpo13+1_amd64.deb"
    assert pool.sha256 == ""


@pytest.mark.parametrize(("wanted", "release"), [
    ("7.2", "7.2.13+deb14-amd64"), ("6.12", "6.12.107+deb13-amd64"), ("7.0.13+deb13-amd64", "7.0.13+deb13-amd64"),
    ("7.2.13-1", "7.2.13+deb14-amd64"), ("7.2.1", None), ("7", "7.2.13+deb14-amd64"), ("8.0", None)])
def test_pick(wanted: str, release: str | None) -> None:
    choice = pick(kernels_in(parse_index(_INDEX.splitlines(), "sid")), wanted)
    assert (choice.release if choice else None) == release


@pytest.mark.parametrize(("low", "high"), [
    ("7.3~rc7-1~exp1", "7.3-1"), ("7.2.12-1~bpo13+1", "7.2.12-1"), ("6.12.94-1", "6.12.107-1"), ("7.2.9-1", "7.2.13-1"),
    ("1.0", "1:0.5"), ("1.0-1", "1.0-1+b1"), ("1.0~", "1.0"), ("1.0a", "1.0+"), ("6.19.8-1", "6.19.10-1~bpo13+1")])
def test_versions_are_ordered_as_debian_does(low: str, high: str) -> None:
    assert compare_versions(low, high) < 0 < compare_versions(high, low)
    assert compare_versions(low, low) == 0
    if shutil.which("dpkg") is not None:
        assert subprocess.run(["dpkg", "--compare-versions", low, "lt", high], check=False).returncode == 0


def test_release_digests() -> None:
    text = "Origin: Debian\nMD5Sum:\n 00 1 main/x\nSHA256:\n " + "a" * 64 + " 12 main/binary-amd64/Packages.xz\n bad 1 y\n"
    assert release_digests(text + "SHA512:\n z 1 main/x\n") == {"main/binary-amd64/Packages.xz": "a" * 64}
    assert release_digests("") == {}


def _of(*versions: str) -> list[KernelPackages]:
    """Return kernels of these versions as Debian names their releases: without a tilde's part, with its backport's."""
    index = ""
    for version in versions:
        release = re.sub(r"~rc\d+|-.*", "", version) + ("+deb13" if "bpo13" in version else "+deb14")
        release = release if "~rc" not in version and "." in version[3:] else release.split("+")[0]
        index += (f"Package: linux-image-{release}-amd64\nVersion: {version}\nFilename: pool/main/l/linux/x_{version}.deb\n"
                  "Size: 107898972\nSHA256: aa\n\n")
    return kernels_in(parse_index(index.splitlines(), "sid"))


@pytest.mark.parametrize(("wanted", "version"), [
    ("7.3", "7.3.4-1~bpo13+1"), ("7.3.4", "7.3.4-1~bpo13+1"), ("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1"),
    ("7.3-rc", "7.3~rc7-1~exp1"), ("7.3-rc7", "7.3~rc7-1~exp1"), ("7.3~rc7", "7.3~rc7-1~exp1"), ("7.3-rc6", None),
    ("7.3-rc70", None), ("7.3-amd64", "7.3~rc7-1~exp1"), ("7.3~rc7-1~exp1", "7.3~rc7-1~exp1"),
    # A line that has nothing but candidates, one with none of them, and both: a release comes first.
    ("7.4", "7.4~rc2-1~exp1"), ("7", "7.3.4-1~bpo13+1"), ("7.2", "7.2.13-1"), ("7.2.1", None), ("7.5", None)])
def test_a_release_comes_before_its_candidates(wanted: str, version: str | None) -> None:
    choice = pick(_of("7.2.13-1", "7.2.9-1~bpo13+1", "7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", "7.4~rc2-1~exp1"), wanted)
    assert (choice.version if choice else None) == version


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["-1", "-1~bpo13+1", "-2"])), max_size=6, unique=True),
       st.lists(st.integers(1, 12), max_size=3, unique=True), st.randoms())
def test_the_newest_of_a_line_is_taken(releases: list[tuple[int, str]], candidates: list[int], order: random.Random) -> None:
    versions = [f"7.3.{number}{rest}" for number, rest in releases] + [f"7.3~rc{n}-1~exp1" for n in candidates]
    order.shuffle(versions)
    choice = pick(_of(*versions, "7.30.1-1", "7.2.40-1"), "7.3")
    # Said a second time, without Debian's order of versions.
    if releases:
        number, best = max(releases, key=lambda row: (row[0], ["-1~bpo13+1", "-1", "-2"].index(row[1])))
        assert choice is not None
        assert choice.version == f"7.3.{number}{best}"
    else:
        assert (choice.version if choice else None) == (f"7.3~rc{max(candidates)}-1~exp1" if candidates else None)


# A mirror in a directory, behind a downloader that copies


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> apt.Mirror:
    helper = tmp_path / "apt-helper"
    helper.write_text('#!/bin/sh\nwhile [ "$1" != download-file ]; do shift; done\n'
                      'cp "$2" "$3" 2>/dev/null || { echo "E: not found" >&2; exit 1; }\n')
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    monkeypatch.setattr(apt, "_signature", lambda release: "")
    return apt.Mirror(str(tmp_path / "mirror"), tmp_path / "cache", lambda text: None)


def _publish(tmp_path: Path, suite: str, index: str) -> None:
    directory = tmp_path / "mirror" / "dists" / suite
    packed = lzma.compress(index.encode())
    digest = hashlib.sha256(packed).hexdigest()
    by_hash = directory / "main/binary-amd64/by-hash/SHA256"
    by_hash.mkdir(parents=True, exist_ok=True)
    (by_hash / digest).write_bytes(packed)
    (directory / "InRelease").write_text(
        f"Acquire-By-Hash: yes\nSHA256:\n {digest} {len(packed)} main/binary-amd64/Packages.xz\n")


def test_suites_are_read_once(mirror: apt.Mirror, tmp_path: Path) -> None:
    _publish(tmp_path, "sid", _INDEX)
    assert len(mirror.suite("sid")) == 6
    shutil.rmtree(tmp_path / "mirror")
    assert len(mirror.suite("sid")) == 6
    assert mirror.packages() == mirror.suite("sid")
    assert any("trixie" in note for note in mirror.notes)


def test_an_index_that_was_tampered_with(mirror: apt.Mirror, tmp_path: Path) -> None:
    _publish(tmp_path, "sid", _INDEX)
    for path in (tmp_path / "mirror").rglob("by-hash/SHA256/*"):
        path.write_bytes(lzma.compress(b"Package: evil\n"))
    with pytest.raises(LabError, match="is not the file that the index names"):
        mirror.suite("sid")


@pytest.mark.parametrize("layout", ["boot", "modules"])
def test_fetch(mirror: apt.Mirror, tmp_path: Path, layout: str) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    release, tree = "7.9-amd64", tmp_path / "tree"
    modules = tree / "usr/lib/modules" / release
    for name, text in {"kernel/crypto/lz4.ko": "lz4", "kernel/drivers/net/e1000.ko": "net"}.items():
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_text(text)
    place = tree / "boot" if layout == "boot" else modules
    place.mkdir(exist_ok=True)
    for name in ("vmlinuz", "config"):
        (place / (f"{name}-{release}" if layout == "boot" else name)).write_text(name)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\n"
                                         "Description: x\n")
    (tmp_path / "mirror").mkdir()
    subprocess.run(["dpkg-deb", "-b", str(tree), str(tmp_path / "mirror/x.deb")], check=True, capture_output=True)
    size, digest = (tmp_path / "mirror/x.deb").stat().st_size, hashlib.sha256((tmp_path / "mirror/x.deb").read_bytes())
    package = Package(f"linux-image-{release}", "7.9-1", "x.deb", size, digest.hexdigest(), "sid")
    cache = tmp_path / "cache"
    kernel = kernels.fetch(KernelPackages(release, "7.9-1", "sid", (package,)), mirror, cache, lambda text: None)
    assert kernel.image.read_text() == "vmlinuz"
    assert kernel.config is not None
    assert kernel.config.read_text() == "config"
    assert kernel.modules is not None
    assert [path.name for path in kernel.modules.rglob("*.ko")] == ["lz4.ko"]
    manifest = json.loads((cache / release / "kernel.json").read_text())
    assert manifest["packages"] == [{"name": package.name, "version": "7.9-1", "sha256": package.sha256,
                                     "in_index": True}]
    shutil.rmtree(tmp_path / "mirror")
    assert kernels.cached(cache, release) == kernel
    kernel.image.write_text("another")
    with pytest.raises(LabError, match="was changed since it was unpacked"):
        kernels.cached(cache, release)


def _keep(cache: Path, release: str, version: str, suite: str) -> None:
    """Put a kernel into a cache."""
    place = cache / release
    (place / "modules").mkdir(parents=True)
    for name in ("vmlinuz", "config"):
        (place / name).write_text(f"{name} of {version}")
    files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in ("vmlinuz", "config")}
    (place / "kernel.json").write_text(json.dumps(
        {"release": release, "origin": f"Debian {suite}, linux-image-{release} {version}", "files": files,
         "packages": [{"name": f"linux-image-{release}", "version": version, "sha256": "", "in_index": True}]}))


@pytest.fixture
def off_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and no mirror."""
    def no_mirror(*_: object) -> apt.Mirror:
        raise LabError("none of this machine's apt sources carries Debian's suite trixie")

    monkeypatch.setattr(labcommon, "find_mirror", no_mirror)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return apt.cache_directory()


def test_off_line_the_newest_of_the_cache_is_taken(off_line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for release, version, suite in (("7.3-amd64", "7.3~rc7-1~exp1", "experimental"), ("7.2.9+deb13-amd64", "7.2.9-1", "sid"),
                                    ("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports")):
        _keep(off_line, release, version, suite)
    shelf = Shelf(None, lambda text: None)
    assert shelf.get("7.3", None).release == "7.3.4+deb13-amd64"
    assert "kernel 7.3 is 7.3.4+deb13-amd64, the newest of the cache: none of this machine's" in capsys.readouterr().err
    assert shelf.get("7.3-rc7", None).release == "7.3-amd64"
    assert shelf.get("7.2.9+deb13-amd64", None).origin == "Debian sid, linux-image-7.2.9+deb13-amd64 7.2.9-1"
    with pytest.raises(LabError, match="none of this machine's apt sources"):
        shelf.get("6.12", None)
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    assert verb.kernels(parser.parse_args(["lab", "kernels", "--json"])) == 0
    out, err = capsys.readouterr()
    assert [(row["release"], row["suite"], row["cached"]) for row in json.loads(out)] == [
        ("7.2.9+deb13-amd64", "sid", True), ("7.3-amd64", "experimental", True),
        ("7.3.4+deb13-amd64", "trixie-backports", True)]
    assert "only kernels of the cache are listed" in err


def test_a_candidate_in_the_cache_is_not_its_release(mirror: apt.Mirror, tmp_path: Path, off_line: Path,
                                                    monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(labcommon, "find_mirror", lambda *_: mirror)
    _keep(off_line, "7.3-amd64", "7.3~rc7-1~exp1", "experimental")
    index = "\n".join(["Package: linux-image-7.3-amd64", "Version: 7.3-1~exp1", "Filename: pool/main/l/linux/x.deb",
                       "Size: 107898972", "SHA256: aa"])
    _publish(tmp_path, "experimental", index)
    # Both are named 7.3-amd64; the release would be fetched, and this mirror does not have it.
    shelf = Shelf(None, lambda text: None)
    assert shelf.get("7.3", None).origin.endswith("7.3~rc7-1~exp1")
    assert "linux/x.deb cannot be fetched" in capsys.readouterr().err
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    assert verb.kernels(parser.parse_args(["lab", "kernels", "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"release": "7.3-amd64", "version": "7.3-1~exp1", "suite": "experimental", "cached": False}]


def test_what_the_mirror_does_not_have(mirror: apt.Mirror, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be fetched"):
        mirror.fetch("pool/nosuch.deb", tmp_path / "nosuch.deb")
    assert not list(tmp_path.glob(".*.part"))


# A kernel of the user's own


def _bzimage(path: Path) -> Path:
    data = bytearray(0x1000)
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = (0x300).to_bytes(2, "little")
    data[0x500:0x530] = b"7.4.0-rc1-dirty (me@box) #1 SMP\0".ljust(0x30, b"\0")
    path.write_bytes(data)
    return path


def test_own_kernel(tmp_path: Path) -> None:
    image = _bzimage(tmp_path / "bzImage")
    (tmp_path / ".config").write_text("#")
    kernel = kernels.own(image, None)
    assert (kernel.release, kernel.config) == ("7.4.0-rc1-dirty", tmp_path / ".config")
    (tmp_path / "elf").write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(LabError, match="not an x86 bzImage"):
        kernels.own(tmp_path / "elf", None)
    with pytest.raises(LabError, match="cannot be read"):
        kernels.own(tmp_path / "nosuch", None)
    with pytest.raises(LabError, match="not a directory"):
        kernels.own(image, tmp_path / "nosuch")


@pytest.mark.parametrize("place", ["lib/modules/7.4.0-rc1-dirty", "usr/lib/modules/7.4.0-rc1-dirty",
                                   "7.4.0-rc1-dirty", "."])
def test_where_the_modules_of_an_own_kernel_are(tmp_path: Path, place: str) -> None:
    image = _bzimage(tmp_path / "bzImage")
    top = tmp_path / "top"
    for name, built_for in ((place, "7.4.0-rc1-dirty"), ("lib/modules/6.1.0", "6.1.0")):
        if place != "." or name == place:
            (top / name / "kernel").mkdir(parents=True)
            (top / name / "kernel" / "virtio_blk.ko").write_bytes(
                f"\x7fELF\0vermagic={built_for} SMP preempt\0depends=\0".encode())
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".config").write_text("CONFIG_ZSMALLOC_CHAIN_SIZE=8")
    (top / place / "build").symlink_to(tmp_path / "tree")
    kernel = kernels.own(image, top)
    assert kernel.modules == top / place
    assert kernel.config == top / place / "build" / ".config"
    assert [name for name, _ in kernels.modules_for(kernel, ("virtio_blk",))] == ["virtio_blk"]


def test_modules_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    image = _bzimage(tmp_path / "bzImage")
    (tmp_path / "m").mkdir()
    with pytest.raises(LabError, match="m holds no modules"):
        kernels.own(image, tmp_path / "m")
    (tmp_path / "m" / "virtio_blk.ko").write_bytes(b"\x7fELF\0vermagic=6.1.0 SMP\0depends=\0")
    with pytest.raises(LabError, match=r"was built for 6\.1\.0, and .*bzImage is 7\.4\.0-rc1-dirty"):
        kernels.modules_for(kernels.own(image, tmp_path / "m"), ("virtio_blk",))
    (tmp_path / "m" / "virtio_blk.ko").unlink()
    (tmp_path / "m" / ".config").touch()
    assert kernels.modules_for(kernels.own(image, tmp_path / "m"), ("virtio_blk",)) == [], "all is built in"


def test_modules_come_with_what_they_need(tmp_path: Path) -> None:
    def module(name: str, needs: str = "") -> bytes:
        return b"\x7fELF\0depends=" + needs.encode() + b"\0name=" + name.encode() + b"\0"

    for name, data in {"lz4.ko.xz": lzma.compress(module("lz4", "lz4_compress,lz4_loop")),
                       "lz4_compress.ko": module("lz4_compress"), "lz4-loop.ko": module("lz4_loop", "lz4"),
                       "e1000.ko": module("e1000"), "lz4.ko.dbg": b""}.items():
        (tmp_path / name).write_bytes(data)
    kernel = BootKernel("x", tmp_path, tmp_path, None, "")
    names = [name for name, _ in kernels.modules_for(kernel, ("virtio_blk", "lz4"))]
    assert names == ["lz4_compress", "lz4_loop", "lz4"]
    assert kernels.modules_for(BootKernel("x", tmp_path, None, None, ""), ("lz4",)) == []
    (tmp_path / "bad.ko.xz").write_bytes(b"\xfd7zXZ\0damaged")
    with pytest.raises(LabError, match="cannot be unpacked"):
        kernels.modules_for(kernel, ("bad",))


# Contents of the guest


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("import os.path\nfrom . import y\nimport pandas\ndef f():\n    from gzip import open\n")
    assert stdlib_imports([source]) == {"os.path", "gzip"}


def test_initramfs(tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (apt install busybox-static)")
    (tmp_path / "config").write_text("CONFIG_ZSWAP=y")
    data = build(BootKernel("7.9-amd64", tmp_path, None, tmp_path / "config", ""))
    found = {member.name: member for member in members(data)}
    python = re.findall(r'PYTHONDONTWRITEBYTECODE=1 "(.*?)" -S', found["init"].data.decode())[0]
    assert found[python.strip("/")].mode & 0o111
    names = set(found)
    assert {"bin/busybox", "zreplay/traces/__init__.py", "zreplay/traces/lab/guest.py", "boot/config-7.9-amd64",
            "zreplay/traces/workload/__main__.py", "zreplay/traces/record/__main__.py"} <= names
    assert not found["zreplay/traces/__init__.py"].data, "the real one asks for pandas"
    assert not any("pandas" in name or "numpy" in name for name in names)
    for wanted in ("/json/__init__.py", "/mmap", "/ctypes/__init__.py"):
        assert any(wanted in name for name in names), wanted
    assert len(data) < 60 << 20
    assert json.loads(next(members(job_archive({"a": 1}))).data) == {"a": 1}


def test_content_goes_along(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"x" * 100)
    assert [(m.name, m.data) for m in members(content_archive(tmp_path / "d" / "x", 100))] == [("content", b"x" * 100)]
    assert "content/d/x" in [member.name for member in members(content_archive(tmp_path, 100))]
    with pytest.raises(LabError, match="has 100 bytes"):
        content_archive(tmp_path, 99)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "empty").touch()
    (tmp_path / "e" / "dangling").symlink_to("nosuch")
    with pytest.raises(LabError, match="holds no pages"):
        content_archive(tmp_path / "e", 100)
    with pytest.raises(LabError, match="cannot be read"):
        content_archive(tmp_path / "nosuch", 99)


def test_what_a_job_is_made_of(tmp_path: Path) -> None:
    def job(*words: str) -> GuestJob:
        parser = ArgumentParser()
        verb.add_parser(parser.add_subparsers())
        arguments = parser.parse_args(["lab", "run", "--kernel", "x", "-o", "x", *words])
        return job_of(arguments, BootKernel("x", tmp_path, None, None, ""), arguments.compressor, arguments.folio, None)

    plain = job("--folio", "64k", "--param", "shrinker_enabled=Y")
    assert (plain.workload, plain.record, plain.cpus) == (("base", "--folio", "64k"), ("--pages", "full"), 1)
    assert plain.params == {"shrinker_enabled": "Y"}
    assert job("--workload", "smp").cpus == 2
    assert (plain.nodes, job("--numa", "2").nodes) == (1, 2)
    assert job("--workload", "switch").record == ("--pages", "full", "--compressor", "lz4")
    for spelt in ("--content /some/dump", "--content=/some/dump", "--conte /some/dump"):
        given = job("--workload", f"base {spelt} --pages 64")
        assert given.content == Path("/some/dump")
        assert given.workload == ("base", "--pages", "64", "--folio", "4k", "--content", "/content")
        assert given.record == ("--pages", "hash"), "pages of files are not synthetic"
    assert job("--workload", "base --folio=64k").workload == ("base", "--folio", "64k")
    assert job("--workload", "base --fol 64k", "--folio", "2M").workload == ("base", "--folio", "64k")
    assert job("--backend", "bcc", "--pages", "none").record == ("--pages", "none", "--backend", "bcc")


# A QEMU that is a script


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory first in PATH; write a script named qemu-system-x86_64 into it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return directory / "qemu-system-x86_64"


def _script(path: Path, text: str) -> None:
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)


def _machine(tmp_path: Path, accel: str = "tcg", cpus: int = 1) -> Machine:
    return Machine(tmp_path / "k", tmp_path / "i", tmp_path / "swap,1", tmp_path / "result", 512, cpus, accel)


def test_the_command_line(qemu: Path, tmp_path: Path) -> None:
    _script(qemu, "exit 0")
    words = _machine(tmp_path, cpus=2).command()
    assert words[:4] == ["nice", str(qemu), "-accel", "tcg,thread=single"]
    assert "max,la57=off" in words
    assert any("swap,,1" in word for word in words)
    assert "kvm" in _machine(tmp_path, "kvm").command()


@pytest.mark.parametrize(("nodes", "cpus", "wanted"), [
    (1, 2, []),
    (2, 1, ["memory-backend-ram,id=node0,size=256M", "node,nodeid=0,memdev=node0,cpus=0",
            "memory-backend-ram,id=node1,size=256M", "node,nodeid=1,memdev=node1"]),
    (3, 4, ["memory-backend-ram,id=node0,size=172M", "node,nodeid=0,memdev=node0,cpus=0,cpus=3",
            "memory-backend-ram,id=node1,size=170M", "node,nodeid=1,memdev=node1,cpus=1",
            "memory-backend-ram,id=node2,size=170M", "node,nodeid=2,memdev=node2,cpus=2"])])
def test_numa_nodes_share_memory_and_cpus(qemu: Path, tmp_path: Path, nodes: int, cpus: int, wanted: list[str]) -> None:
    _script(qemu, "exit 0")
    words = dataclasses.replace(_machine(tmp_path, cpus=cpus), nodes=nodes).command()
    assert [word for before, word in itertools.pairwise(words) if before in ("-object", "-numa")] == wanted


def test_a_panic(qemu: Path, tmp_path: Path) -> None:
    _script(qemu, """
        echo 'one line'
        printf '\\033[2J[    1.0] BootKernel panic - not syncing: VFS\\n'
        exit 0""")
    with pytest.raises(GuestDied, match="panicked") as death:
        boot(_machine(tmp_path), tmp_path / "console", 10, lambda text: None, lambda: None)
    assert death.value.console.endswith("Kernel panic - not syncing: VFS")
    assert "\x1b" not in death.value.console


@pytest.mark.parametrize(("patience", "what"), [(None, "not done after"), (0.5, "said nothing")])
def test_a_hang(qemu: Path, tmp_path: Path, patience: float | None, what: str) -> None:
    _script(qemu, "exec sleep 60")
    with pytest.raises(GuestDied, match=what):
        boot(_machine(tmp_path), tmp_path / "console", 1.0, lambda text: None, lambda: None, patience)


def test_no_machine_outlives_its_lab(qemu: Path, tmp_path: Path) -> None:
    _script(qemu, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    def end() -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        boot(_machine(tmp_path), tmp_path / "console", 30, lambda text: None, end)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_the_guest_says(qemu: Path, tmp_path: Path) -> None:
    _script(qemu, "echo '[  1.0] zreplay-lab: recording'; echo other; echo zreplay-lab: done")
    said: list[str] = []
    boot(_machine(tmp_path), tmp_path / "console", 10, said.append, lambda: None)
    assert said == ["recording", "done"]
    assert tail(tmp_path / "nosuch") == ""


def test_what_a_dead_guest_sent_is_kept(qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "events.raw").write_bytes(b"e" * 5000)
    with (tmp_path / "disk").open("wb") as image:
        image.truncate(1 << 20)
    Sender(tmp_path / "disk", tmp_path / "sent").send_new()
    _script(qemu, f"""
        for word; do case $word in file=*result*) disk=${{word#file=}}; disk=${{disk%%,*}};; esac; done
        cp {tmp_path}/disk "$disk"
        echo 'Kernel panic - not syncing: Fatal exception'""")
    monkeypatch.setattr("traces.lab.run.build", lambda *parts: b"")
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    out = tmp_path / "r.zr"
    arguments = parser.parse_args(["lab", "run", "--kernel", str(_bzimage(tmp_path / "bzImage")), "--accel", "tcg",
                                   "-o", str(out)])
    assert arguments.run(arguments) == 5
    said = capsys.readouterr().err
    assert "Fatal exception" in said
    assert "the guest panicked." in said
    assert f"1 files of the capture (5,000 bytes); import it with 'zreplay import {out}.partial/capture -o REC'" in said
    assert (tmp_path / "r.zr.partial/capture/events.raw").read_bytes() == b"e" * 5000
    assert not out.exists()
    assert not list(tmp_path.glob(".r.zr.*")), "the disks are gone"
    assert arguments.run(arguments) == 2, "what was kept is not overwritten"


def test_a_host_without_room(qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Receiver) -> None:
        raise OSError(28, "No space left on device")

    _script(qemu, "echo zreplay-lab: recording; exec sleep 60")
    monkeypatch.setattr("traces.lab.run.build", lambda *parts: b"")
    monkeypatch.setattr(Receiver, "receive", full)
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "zstd", ("base",), accel="tcg")
    with pytest.raises(GuestDied, match="No space left on device") as death:
        run(job, tmp_path / "r.zr")
    assert death.value.kept == f"see its console in {tmp_path}/r.zr.partial"


def test_a_problem_in_the_guest_is_told(qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sent").mkdir()
    with (tmp_path / "disk").open("wb") as image:
        image.truncate(1 << 20)
    Sender(tmp_path / "disk", tmp_path / "sent").end({"status": None, "problem": "this kernel has no zswap"})
    _script(qemu, f"""
        for word; do case $word in file=*result*) disk=${{word#file=}}; disk=${{disk%%,*}};; esac; done
        cp {tmp_path}/disk "$disk"; echo zreplay-lab: done""")
    monkeypatch.setattr("traces.lab.run.build", lambda *parts: b"")
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "zstd", ("base",), accel="tcg")
    with pytest.raises(GuestDied, match="this kernel has no zswap"):
        run(job, tmp_path / "r.zr")


def test_a_guest_without_its_disks_says_so(qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestcommon, "_DISKS_WITHIN", 0.1)
    guestcommon.await_disks(tmp_path)
    with pytest.raises(OSError, match="neither built in nor among its modules"):
        guestcommon.await_disks(tmp_path, tmp_path / "nosuch")
    _script(qemu, "echo zreplay-lab: failed: there is no disk /dev/vda; echo zreplay-lab: done")
    monkeypatch.setattr("traces.lab.run.build", lambda *parts: b"")
    job = GuestJob(BootKernel("x", tmp_path / "k", None, None, ""), "zstd", ("base",), accel="tcg")
    with pytest.raises(GuestDied, match="could not do its work: there is no disk /dev/vda"):
        run(job, tmp_path / "r.zr")


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="apt install qemu-system-x86 busybox-static"):
        build(BootKernel("x", tmp_path, None, None, ""))
    with pytest.raises(LabError, match="apt install qemu-system-x86 busybox-static"):
        _machine(tmp_path).command()


@pytest.mark.parametrize(("text", "size"), [("768", 768), ("768M", 768), ("2G", 2048), ("2g", 2048)])
def test_memory(text: str, size: int) -> None:
    assert memory_mib(text) == size


@pytest.mark.parametrize("words", [["--memory", "0"], ["--memory", "x"], ["--smp", "0"], ["--workload", "nosuch"],
                                   ["--workload", "base 'x"], ["--workload", "base --pages x"],
                                   ["--workload", "base --nosuch"], ["--workload", "base --content"], ["--param", "x"], ["--folio", "8k"]])
def test_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["lab", "run", "--kernel", "7.2", "-o", "x", *words])
    assert left.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_kernel_without_a_configuration_is_told_its_chain_size(qemu: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    (tmp_path / "sent").mkdir()
    with (tmp_path / "disk").open("wb") as image:
        image.truncate(1 << 20)
    Sender(tmp_path / "disk", tmp_path / "sent").end({"status": 0, "problem": ""})
    _script(qemu, f"""
        for word; do case $word in file=*result*) disk=${{word#file=}}; disk=${{disk%%,*}};; esac; done
        cp {tmp_path}/disk "$disk"; echo zreplay-lab: done""")
    monkeypatch.setattr("traces.lab.run.build", lambda *parts: b"")
    monkeypatch.setattr("traces.lab.run.import_source",
                        lambda source, out, overrides: asked.append(overrides) or {"rows": 0, "losses": [], "notes": []})
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    image_path = str(_bzimage(tmp_path / "bzImage"))
    for words, size in (([], None), (["--chain-size", "10"], 10)):
        arguments = parser.parse_args(["lab", "run", "--kernel", image_path, "--accel", "tcg", *words, "-o",
                                       str(tmp_path / "r.zr")])
        assert arguments.run(arguments) == 0
        assert asked.pop() == {"chain_size": size, "origin": "bzImage", "build": None}
