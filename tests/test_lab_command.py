# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's command in the lab: its options, its packages, its root, how it is run and reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import os
import shutil
import stat
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import lab as verb
from replay.cli import labcommand, labcommon, labiaa
from traces.importers.capture import read_command
from traces.lab import apt, guestcommand, roots
from traces.lab.cpio import CpioMember, CpioWriter, directories, members
from traces.lab.errors import LabError
from traces.lab.initramfs import files_archive, job_archive
from traces.lab.kernels import BootKernel
from traces.lab.packages import closure
from traces.lab.roots import Root, cached_root, make_root, merged
from traces.lab.run import Foreign, GuestJob, _root_parts

# Options


def parse(*words: str) -> Namespace:
    parser = ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["lab", "run", "--kernel", "7.3", "-o", "r.zr", *words])
    labcommand.check(arguments)
    labiaa.check(arguments)
    return arguments


def test_everything_after_the_dashes_is_the_command() -> None:
    found = parse("--package", "gcc", "--package", "libc6-dev", "--cgroup", "memory.max=16M", "--time", "90", "--",
                  "sh", "-c", "echo --package x", "-o", "y")
    assert found.command == ["sh", "-c", "echo --package x", "-o", "y"]
    assert (found.package, found.cgroup, found.time) == (["gcc", "libc6-dev"], [("memory.max", "16M")], 90.0)
    assert (found.suite, found.systemd, found.swap, found.memory) == ("trixie", False, None, None)
    assert parse("--swap", "512M", "--systemd", "--", "true").swap == 512 << 20


def test_without_a_command_it_is_the_workload() -> None:
    assert parse("--workload", "limits --pages 64").workload == ("limits", "--pages", "64")


@pytest.mark.parametrize(("words", "sentence"), [
    (("--package", "gcc"), "--package goes with a command of yours"), (("--systemd",), "--systemd goes with a command"),
    (("--workload", "base", "--", "true"), "--workload and a command both say what is to run"),
    (("--backend", "bcc", "--", "true"), "recorded with --backend tracefs"),
    (("--folio", "64k", "--", "true"), "--folio is of the workload")])
def test_options_that_do_not_fit(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        parse(*words)


@pytest.mark.parametrize(("words", "sentence"), [
    (("--package", "A B"), "is not the name of a package"), (("--package", "../x"), "is not the name of a package"),
    (("--package", "-x"), "expected one argument"),
    (("--file", "/nosuch/file"), "there is no file '/nosuch/file'"), (("--file", "/etc/passwd:"), "names no place"),
    (("--file", "/etc/passwd:/tmp/x"), "mounts something over /tmp"),
    (("--file", "/etc/passwd:/x/../../y"), "is not a place in the guest"), (("--file", "/etc/passwd:/"), ""),
    (("--cgroup", "memory.max"), "is not FILE=VALUE"), (("--cgroup", "../memory.max=1"), "is not FILE=VALUE"),
    (("--time", "0"), "is not a number of seconds"), (("--time", "nan"), "is not a number of seconds"),
    (("--swap", "lots"), "is not a size"), (("--suite", "buster"), "invalid choice")])
def test_options_that_make_no_sense(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    if words == ("--file", "/etc/passwd:/"):
        # A directory: the file keeps its name there.
        assert parse(*words, "--", "true").file == [(Path("/etc/passwd"), "/passwd")]
        return
    with pytest.raises(SystemExit) as end:
        parse(*words, "--", "true")
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("text", "place"), [
    ("t.sh", "/srv/t.sh"), ("t.sh:other", "/srv/other"), ("t.sh:sub/", "/srv/sub/t.sh"), ("t.sh:/usr/bin/t", "/usr/bin/t"),
    ("t.sh:/usr/bin/", "/usr/bin/t.sh"), ("d", "/srv/d"), ("d:/opt/e", "/opt/e")])
def test_where_files_go(text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.sh").write_text("")
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    (path, there), = parse("--file", text, "--", "true").file
    assert (path.name, there) == (text.split(":")[0], place)


# Dependencies


def stanza(name: str, version: str = "1-1", *, depends: str = "", provides: str = "", essential: bool = False,
           priority: str = "optional") -> str:
    fields = {"Package": name, "Version": version, "Filename": f"pool/main/x/{name}_{version}.deb", "Size": "10",
              "SHA256": "ab", "Priority": priority, "Depends": depends, "Provides": provides,
              "Essential": "yes" if essential else ""}
    return "".join(f"{key}: {value}\n" for key, value in fields.items() if value) + "\n"


def names(index: str, *wanted: str, essential: bool = False) -> list[str]:
    return [package.name for package in closure(index.splitlines(keepends=True), "trixie", wanted, essential=essential)]


def test_what_is_taken_anyway_satisfies_an_alternative() -> None:
    index = stanza("tool", depends="mta | big") + stanza("mta") + stanza("big")
    assert names(index, "tool") == ["mta", "tool"]
    assert names(index, "tool", "big") == ["big", "tool"], "named by the user"
    assert names(index + stanza("other", depends="big"), "tool", "other") == ["big", "other", "tool"], "needed anyway"


def test_of_providers_the_most_wanted() -> None:
    index = (stanza("tool", depends="awk") + stanza("gawk", provides="awk", depends="libs") + stanza("libs")
             + stanza("mawk", provides="awk", priority="required"))
    assert names(index, "tool") == ["mawk", "tool"]
    assert names(index, "tool", "gawk") == ["gawk", "libs", "tool"]


def test_essential_packages_are_part_of_a_root() -> None:
    index = stanza("tool") + stanza("dash", essential=True, depends="libc6") + stanza("libc6") + stanza("other")
    assert names(index, "tool") == ["tool"]
    assert names(index, "tool", essential=True) == ["dash", "libc6", "tool"]


def test_of_two_versions_the_newer() -> None:
    index = stanza("tool", "2.9-1") + stanza("tool", "2.10-1") + stanza("tool", "2.10~rc1-1")
    found, = closure(index.splitlines(), "sid", ["tool"])
    assert (found.version, found.filename) == ("2.10-1", "pool/main/x/tool_2.10-1.deb")


_NAMES = [f"p{number}" for number in range(8)]
#: Of each package: its dependencies, each some alternatives (of packages and of v0 to v2), and what it provides.
_GRAPH = st.fixed_dictionaries({name: st.tuples(
    st.lists(st.lists(st.sampled_from([*_NAMES, "v0", "v1", "v2"]), min_size=1, max_size=3), max_size=3),
    st.lists(st.sampled_from(["v0", "v1", "v2"]), max_size=2, unique=True), st.booleans()) for name in _NAMES})


@settings(deadline=None, max_examples=150)
@given(_GRAPH, st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3, unique=True))
def test_a_closure_needs_nothing_and_holds_nothing_else(graph: dict[str, Any], wanted: list[str]) -> None:
    there = {name: row for name, row in graph.items() if row[2]}
    index = "".join(stanza(name, depends=", ".join(" | ".join(f"{one} (>= 1)" for one in group) for group in groups),
                           provides=", ".join(provides)) for name, (groups, provides, _) in there.items())

    def satisfied(group: list[str], by: set[str]) -> set[str]:
        return {name for name in by if name in group or set(there[name][1]) & set(group)}

    try:
        found = set(names(index, *wanted))
    except KeyError as missing:
        # A package depends on one that the suite does not have.
        groups = [[one] for one in wanted] + [group for groups, _, _ in there.values() for group in groups]
        asked = [one.split(" ")[0] for one in missing.args[0].split(" | ")]
        assert asked in groups
        assert not satisfied(asked, set(there))
        return
    assert set(wanted) <= found <= set(there)
    for name in found:
        for group in there[name][0]:
            assert satisfied(group, found), f"{name} lacks {group}"
    # Every package that was not named is a dependency of another one in the set, starting from those named.
    reached = set(wanted)
    while True:
        more = {other for name in reached for group in there[name][0] for other in satisfied(group, found)} - reached
        if not more:
            break
        reached |= more
    assert found == reached


# Roots


def deb(tmp_path: Path, name: str, files: dict[str, str], postinst: str = "") -> bytes:
    tree = tmp_path / "tree" / name
    for file, text in files.items():
        path = tree / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        elif text.startswith("= "):
            os.link(tree / text[2:], path)
        else:
            path.write_text(text)
            path.chmod(0o4755 if file.endswith("/su") else 0o755 if "/bin/" in file else 0o644)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\n"
                                         "Description: x\n")
    if postinst:
        (tree / "DEBIAN/postinst").write_text("#!/bin/sh\n" + postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(tmp_path / "x.deb")], check=True,
                   capture_output=True)
    return (tmp_path / "x.deb").read_bytes()


class Suite:
    """A mirror with a suite that packages can be put into."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.index = ""
        (tmp_path / "mirror/pool").mkdir(parents=True)
        self.mirror = apt.Mirror(str(tmp_path / "mirror"), tmp_path / "cache", lambda text: None)

    def add(self, name: str, files: dict[str, str], fields: str = "", postinst: str = "", version: str = "1") -> None:
        data = deb(self.path, f"{name}-{version}", files, postinst)
        (self.path / f"mirror/pool/{name}_{version}.deb").write_bytes(data)
        self.index += (f"Package: {name}\nVersion: {version}\nFilename: pool/{name}_{version}.deb\nSize: {len(data)}\n"
                       f"SHA256: {hashlib.sha256(data).hexdigest()}\n{fields}\n")
        self.publish()

    def publish(self) -> None:
        packed = lzma.compress(self.index.encode())
        suite = self.path / "mirror/dists/trixie"
        (suite / "main/binary-amd64").mkdir(parents=True, exist_ok=True)
        (suite / "main/binary-amd64/Packages.xz").write_bytes(packed)
        (suite / "InRelease").write_text(f"SHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} "
                                         "main/binary-amd64/Packages.xz\n")
        # Another day.
        (self.path / "cache/indexes/trixie.InRelease").unlink(missing_ok=True)

    def root(self, *wanted: str) -> Root:
        return make_root(wanted, "trixie", self.mirror, self.path / "cache", lambda text: None)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    helper = tmp_path / "apt-helper"
    helper.write_text('#!/bin/sh\nwhile [ "$1" != download-file ]; do shift; done\n'
                      'cp "$2" "$3" 2>/dev/null || { echo "E: not found" >&2; exit 1; }\n')
    helper.chmod(0o755)
    monkeypatch.setattr(apt, "_HELPER", helper)
    monkeypatch.setattr(apt, "_signature", lambda release: "")
    made = Suite(tmp_path)
    made.add("dash", {"usr/bin/dash": "shell", "usr/bin/sh": "-> dash", "bin/old": "not merged",
                      "usr/share/doc/dash/copyright": "unread", "usr/bin/su": "set user id"}, "Essential: yes\n")
    return made


def guest(root: Root) -> dict[str, CpioMember]:
    return {member.name.removeprefix("guest/"): member for member in members(root.archive.read_bytes())}


def test_a_root(suite: Suite) -> None:
    suite.add("tool", {"usr/bin/tool": "program", "usr/lib/tool/again": "= usr/bin/tool", "lib/x/y.so": "-> y.so.1",
                       "etc/tool.conf": "conf"}, "Depends: libt\n")
    suite.add("libt", {"usr/lib/libt.so": "library"})
    suite.add("unrelated", {"usr/bin/unrelated": "unrelated"})
    root = suite.root("tool")
    assert root.packages == {"dash": "1", "libt": "1", "tool": "1"}
    assert root.size == root.archive.stat().st_size
    found = guest(root)
    assert found["usr/bin/tool"].data == found["usr/lib/tool/again"].data == b"program"
    assert found["usr/bin/tool"].mode == stat.S_IFREG | 0o755
    assert found["usr/bin/su"].mode == stat.S_IFREG | 0o4755
    assert found["usr/lib/x/y.so"].data == b"y.so.1"
    assert found["usr/bin/old"].data == b"not merged"
    assert (found["bin"].data, found["lib64"].data) == (b"usr/bin", b"usr/lib64")
    assert found["etc/tool.conf"].data == b"conf"
    assert stat.S_IMODE(found["tmp"].mode) == 0o1777
    assert not [member for member in found.values() if member.data in (b"unread", b"unrelated")]
    for name in ("proc", "sys", "dev", "run", "root"):
        assert stat.S_ISDIR(found[name].mode)
    assert b"root:*:0:0:root:/root:/bin/sh\n" in found["etc/passwd"].data
    assert b"nobody:" in found["etc/passwd"].data
    assert b"localhost" in found["etc/hosts"].data
    assert all(member.owner == (0, 0) for member in found.values())


def test_users_and_links_that_scripts_would_make(suite: Suite) -> None:
    suite.add("bus", {"usr/lib/sysusers.d/bus.conf": '# bus\nu messagebus - "The: bus" /run/bus\ng journal - -\n'
                                                     'u! fixed 71 - - /bin/sh\nu both 72:journal\nm messagebus journal\n',
                      "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\nold:*:999:999::/:/bin/sh\n",
                      "usr/share/base-passwd/group.master": "root:*:0:\n"})
    suite.add("compiler", {"usr/bin/gcc": "cc1"}, postinst="update-alternatives --quiet --install /usr/bin/cc cc "
              "/usr/bin/gcc 20 \\\n --slave /usr/share/x.1 x.1 /usr/share/gcc.1\n"
              'update-alternatives --install "/usr/bin/vi" "vi" "/usr/bin/nosuch" 50\n'
              "update-alternatives --install $here name /usr/bin/gcc 1\n")
    found = guest(suite.root("bus", "compiler"))
    assert found["usr/bin/cc"].data == b"/usr/bin/gcc"
    assert not {"usr/bin/vi", "usr/share/x.1"} & found.keys(), "what they lead to is in no package"
    passwd = {row.split(":")[0]: row for row in found["etc/passwd"].data.decode().splitlines()}
    group = {row.split(":")[0]: row.split(":")[2] for row in found["etc/group"].data.decode().splitlines()}
    assert passwd["root"] == "root:*:0:0:root:/root:/bin/bash"
    # 999 is taken.
    assert passwd["messagebus"] == f"messagebus:*:998:{group['messagebus']}:The  bus:/run/bus:/usr/sbin/nologin"
    assert passwd["fixed"].split(":")[1:4] == ["*", "71", "71"]
    assert passwd["fixed"].split(":")[6] == "/bin/sh"
    assert passwd["both"].startswith("both:*:72:")
    assert group["journal"] == "997"
    assert {row.split(":")[0] for row in found["etc/shadow"].data.decode().splitlines()} == set(passwd)
    assert stat.S_IMODE(found["etc/shadow"].mode) == 0o600


def test_a_root_is_kept_until_its_packages_change(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.add("tool", {"usr/bin/tool": "old"})
    first = suite.root("tool")
    suite.add("unrelated", {"usr/bin/unrelated": "x"})
    assert suite.root("tool", "tool") == first
    suite.add("tool", {"usr/bin/tool": "new"}, version="2")
    second = suite.root("tool")
    assert (second.packages["tool"], guest(second)["usr/bin/tool"].data) == ("2", b"new")
    (suite.path / "mirror").rename(suite.path / "gone")
    (suite.path / "cache/indexes/trixie.InRelease").unlink()
    with pytest.raises(LabError, match="cannot be fetched"):
        suite.root("tool")
    # Offline the cache is used, and a missing package is reported.
    shelf = labcommon.Shelf(None, lambda text: None)
    monkeypatch.setattr(shelf, "mirror_of_packages", lambda: suite.mirror)
    monkeypatch.setattr(labcommand, "cache_directory", lambda: suite.path / "cache")
    assert labcommand.root_of(["tool"], "trixie", shelf) == second
    with pytest.raises(LabError, match="cannot be fetched"):
        labcommand.root_of(["unrelated"], "trixie", shelf)


def test_what_a_suite_does_not_have(suite: Suite) -> None:
    with pytest.raises(LabError, match=r"suite trixie has no package nosuch; name another with --package, or a suite"):
        suite.root("nosuch")
    suite.add("tool", {"usr/bin/tool": "old"}, "Depends: gone (>= 2) | lost\n")
    with pytest.raises(LabError, match=r"suite trixie has no package gone \(>= 2\) \| lost"):
        suite.root("tool")


def test_packages_and_archives_that_were_changed(suite: Suite) -> None:
    suite.add("tool", {"usr/bin/tool": "old"})
    root = suite.root("tool")
    kept = suite.path / "cache/debs/tool_1.deb"
    good = kept.read_bytes()
    kept.write_bytes(b"evil")
    suite.index += "\n"
    suite.publish()
    assert suite.root("tool").packages == root.packages
    assert kept.read_bytes() == good, "fetched again"
    os.truncate(root.archive, 100)
    with pytest.raises(LabError, match="was changed since it was made"):
        cached_root(suite.path / "cache", ["tool"])
    kept.unlink()
    (suite.path / "mirror/pool/tool_1.deb").write_bytes(b"evil")
    shutil.rmtree(root.archive.parent)
    with pytest.raises(LabError, match="is not the file that the index names"):
        suite.root("tool")


@pytest.mark.parametrize(("name", "place"), [
    ("./bin/sh", "usr/bin/sh"), ("lib/x/y", "usr/lib/x/y"), ("./lib", ""), ("./", ""), ("usr/bin/x", "usr/bin/x"),
    ("/sbin/x/", "usr/sbin/x"), ("library/x", "library/x")])
def test_merged(name: str, place: str) -> None:
    assert merged(name) == place


# Files and memory


def root_file(tmp_path: Path, *names: str) -> Root:
    archive = CpioWriter()
    for name in names:
        archive.directory(f"guest/{name}", 0o1777)
    archive.symlink("guest/bin", "usr/bin")
    (tmp_path / "root.cpio").write_bytes(archive.finish())
    return Root(tmp_path / "root.cpio", 4 << 20, {}, "trixie")


def test_files_go_along_with_their_modes(tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/run.sh").write_text("run")
    (tmp_path / "d/run.sh").chmod(0o755)
    (tmp_path / "d/data").write_text("data")
    (tmp_path / "d/data").chmod(0o600)
    (tmp_path / "d/link").symlink_to("data")
    (tmp_path / "to").symlink_to("d/run.sh")
    root = root_file(tmp_path, "usr/bin", "var/tmp")
    found = {member.name: member for member in members(files_archive(
        [(tmp_path / "d", "/srv/d"), (tmp_path / "to", "/bin/run"), (tmp_path / "d/data", "/var/tmp/new/x")],
        root.archive))}
    assert found["guest/srv/d/run.sh"].mode == stat.S_IFREG | 0o755
    assert found["guest/srv/d/data"].mode == stat.S_IFREG | 0o600
    assert found["guest/srv/d/link"].data == b"data"
    assert stat.S_ISDIR(found["guest/srv/d/sub"].mode)
    assert found["guest/usr/bin/run"].data == b"run"
    # The kernel would replace a link by a directory, and give one that is there another mode.
    assert not {"guest/bin", "guest/usr/bin", "guest/var/tmp", "guest"} & found.keys()
    assert "guest/var/tmp/new" in found


def test_directories_of_an_archive(tmp_path: Path) -> None:
    archive = CpioWriter()
    archive.file("a/b/c", b"x" * 4097)
    archive.directory("d")
    archive.symlink("e", "d")
    (tmp_path / "x").write_bytes(archive.finish())
    assert directories(tmp_path / "x") == {"a", "a/b", "d"}
    (tmp_path / "x").write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match="no newc header at byte 0"):
        directories(tmp_path / "x")


def test_an_archive_in_a_file_is_that_in_memory(tmp_path: Path) -> None:
    def fill(archive: CpioWriter) -> bytes:
        archive.file("a/odd", b"x" * 4097, 0o600, (1, 2), 3)
        archive.directory("b", 0o1777, (4, 5))
        return archive.finish()

    data = fill(CpioWriter())
    with (tmp_path / "x").open("wb") as out:
        assert fill(CpioWriter(out)) == b""
    assert (tmp_path / "x").read_bytes() == data
    found = {member.name: member for member in members(data)}
    assert (found["a/odd"].owner, found["b"].owner, stat.S_IMODE(found["b"].mode)) == ((1, 2), (4, 5), 0o1777)


def test_a_root_that_does_not_fit(tmp_path: Path) -> None:
    kernel = BootKernel("7.3", tmp_path / "x", None, None, "x")
    foreign = Foreign(("true",), dataclasses.replace(root_file(tmp_path), size=400 << 20))
    job = GuestJob(kernel, "lz4", (), memory=1056, foreign=foreign)
    assert len(_root_parts(dataclasses.replace(job, memory=1057), foreign)) == 2
    with pytest.raises(LabError, match=r"have 400 MiB, .* --memory 1312M"):
        _root_parts(job, foreign)


def test_the_job_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = root_file(tmp_path)
    asked: list[list[str]] = []
    monkeypatch.setattr(labcommand, "root_of", lambda wanted, suite, shelf: asked.append(wanted) or root)
    kernel = BootKernel("7.3", tmp_path / "x", None, None, "x")
    shelf = labcommon.Shelf(None, lambda text: None)
    job = labcommand.command_job(parse("--package", "stress-ng", "--cgroup", "memory.max=1M", "--systemd", "--swap", "1G",
                                       "--timeout", "300", "--", "true", "x"), kernel, shelf)
    assert asked == [["stress-ng", "systemd", "dbus"]]
    assert (job.memory, job.swap, job.cpus, job.workload) == (1024 + 8, 1 << 30, 1, ())
    assert job.record[:2] == ("--pages", "hash")
    assert job.record[2::2] == ("--compressor",) * 5
    assert set(job.record[3::2]) == {"lz4", "lz4hc", "lzo", "lzo-rle", "deflate"}, "zstd is the one it starts with"
    assert job.foreign is not None
    assert job.foreign.options() == {"command": ["true", "x"], "cgroup": {"memory.max": "1M"}, "seconds": 200.0,
                                     "systemd": True, "directory": "/srv"}
    archived = {member.name: member.data for member in members(job_archive(job.foreign.options()))}
    assert json.loads(archived["job.json"])["command"] == ["true", "x"]
    assert "systemd" in archived
    plain = labcommand.command_job(parse("--memory", "2G", "--", "true"), kernel, shelf)
    assert plain.memory == 2048
    assert "systemd" not in {member.name for member in members(job_archive(plain.foreign.options()))}  # type: ignore[union-attr]


# The command in the guest


def run_command(tmp_path: Path, *words: str, seconds: float = 20.0) -> tuple[int, dict[str, Any]]:
    """Run a command as the guest does, in this machine's root."""
    (tmp_path / "capture").mkdir(exist_ok=True)
    (tmp_path / "cgroup").mkdir(exist_ok=True)
    job = {"command": list(words), "seconds": seconds, "systemd": False, "directory": str(tmp_path)}
    status = guestcommand.run(job, tmp_path / "capture", str(tmp_path / "cgroup"))
    answer = read_command(tmp_path / "capture")
    assert answer is not None
    return status, answer


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("entering a root needs root")
    monkeypatch.setattr(guestcommand, "root_of", lambda job: "/")


@pytest.mark.usefixtures("here")
def test_what_a_command_says_and_how_it_ends(tmp_path: Path) -> None:
    status, answer = run_command(tmp_path, "sh", "-c", "echo out; echo err >&2; pwd; exit 3")
    assert status == answer["status"] == 3
    assert (answer["stdout"], answer["stderr"]) == (f"out\n{tmp_path}\n", "err\n")
    assert answer["words"] == ["sh", "-c", "echo out; echo err >&2; pwd; exit 3"]
    assert (answer["timed_out"], answer["signal"]) == (False, None)
    assert (tmp_path / "cgroup/cgroup.procs").read_text() == "0", "in its cgroup from the first instruction"


@pytest.mark.usefixtures("here")
def test_commands_that_end_otherwise(tmp_path: Path) -> None:
    status, answer = run_command(tmp_path, "sh", "-c", "kill -9 $$")
    assert (status, answer["signal"], answer["timed_out"]) == (137, 9, False)
    status, answer = run_command(tmp_path, "no-such-program")
    assert status == 127
    assert answer["problem"] == "no-such-program cannot be run in the guest (No such file or directory)"
    (tmp_path / "data").write_text("x")
    assert run_command(tmp_path, "./data")[0] == 126
    status, answer = run_command(tmp_path, "sh", "-c", "echo begun; sleep 60", seconds=0.3)
    assert (status, answer["timed_out"], answer["stdout"]) == (124, True, "begun\n")


@pytest.mark.usefixtures("here")
def test_a_command_that_says_too_much_or_leaves_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestcommand, "KEPT", 1000)
    status, answer = run_command(tmp_path, "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; (sleep 30) & echo ok >&2")
    assert status == 0
    assert answer["stdout"] == "x" * 1000
    assert answer["bytes"] == {"command.stdout": 300000, "command.stderr": 3}


def test_what_a_guest_that_died_left(tmp_path: Path) -> None:
    assert read_command(tmp_path) is None
    (tmp_path / "command.stdout").write_bytes(b"begun\n\xff")
    assert read_command(tmp_path) == {"words": ["?"], "status": None, "stdout": "begun\n\ufffd", "stderr": ""}
    for damaged in (b"[]", b"{", b'{"words": [], "status": 0}', b'{"words": ["x"], "status": "0"}'):
        (tmp_path / "command.json").write_bytes(damaged)
        answer = read_command(tmp_path)
        assert answer is not None
        assert answer["status"] is None


# Reports


@pytest.mark.parametrize(("answer", "sentence"), [
    ({"status": 3}, "the command failed with status 3 after 1.5 s: make all"),
    ({"status": 137, "signal": 9}, "the command was ended by signal 9"),
    ({"status": 124, "timed_out": True}, "was stopped after 2 s; give it more with --time"),
    ({"status": 127, "problem": "make cannot be run in the guest (x)"}, "make cannot be run in the guest (x); see its name"),
    ({"status": None}, "how the command ended is not known")])
def test_a_command_that_fails_is_said(answer: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"words": ["make", "all"], "seconds": 1.5, "stdout": "", "stderr": "bad\n", "signal": None,
            "timed_out": False, "problem": "", **answer}
    assert labcommand.show(said) == 1
    err = capsys.readouterr().err
    assert sentence in " ".join(err.split())
    assert "  bad\n" in err


def test_a_long_output_is_cut_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(f"line {number}\n" for number in range(1000)) + "\x1b[2Jend\u202e\n"
    assert labcommand.show({"words": ["x"], "status": 0, "seconds": 1.0, "stdout": text, "stderr": ""}) == 0
    out = capsys.readouterr().out
    assert "its last 40 lines of 1,001; all are in the recording" in out
    assert "line 960" not in out
    assert "line 962" in out
    assert out.splitlines()[-2] == "  ?[2Jend?"


def test_the_recipe_counts() -> None:
    places = {roots._place(Path("c"), wanted, suite) for wanted in (["a"], ["b"], ["a", "b"]) for suite in ("sid", "trixie")}
    assert len(places) == 6
    assert roots._place(Path("c"), ["b", "a", "a"], "sid") == roots._place(Path("c"), ["a", "b"], "sid")
