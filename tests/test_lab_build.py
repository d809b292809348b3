# SPDX-License-Identifier: GPL-2.0-or-later
"""Building a kernel for the lab, with a make that only plays one. A real build: ``-m lab``."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import pytest
from test_series import OLD, changed, content, diff, mailbox, posted, tarball

from replay.cli import lab as verb
from replay.cli import main
from replay.cli.labcommon import job_of
from traces.lab import kbuild
from traces.lab.cpio import members
from traces.lab.errors import LabError
from traces.lab.initramfs import build
from traces.lab.kbuild import FRAGMENT, check_needs, compiler_complaint, options_of, read_facts
from traces.lab.kernels import BootKernel, own
from traces.lab.packages import Package, source_packages
from traces.lab.sources import cached_source, choose, local_source
from traces.lab.sourcetree import SourceTree

_MAKE = r"""#!/bin/sh
# Plays make: its targets appear, and the log has its arguments.
for word in "$@"; do
    case $word in
        O=*) obj=${word#O=};;
        M=*) module=${word#M=};;
        KCONFIG_ALLCONFIG=*) config=${word#KCONFIG_ALLCONFIG=};;
    esac
done
echo "$KBUILD_BUILD_USER@$KBUILD_BUILD_HOST" > "$obj/who"
case "$*" in
    *allnoconfig*)
        grep -v "${DROPPED:-nothing}" "$config" > "$obj/.config"
        exit 0;;
    *M=*)
        printf '\0vermagic=9.9.1-zreplay SMP\0depends=\0' > "$module/$(basename "$module").ko"
        exit 0;;
esac
echo "  CC      mm/zswap.o"
if [ -n "$BROKEN" ]; then
    echo "../tree/mm/zswap.c:12:3: error: 'nosuch' undeclared (first use in this function)"
    echo "make[4]: *** [scripts/Makefile.build:287: mm/zswap.o] Error 1"
    echo "make: *** [Makefile:248: __sub-make] Error 2"
    exit 2
fi
mkdir -p "$obj/arch/x86/boot" "$obj/include/config" "$obj/drivers"
echo 9.9.1-zreplay > "$obj/include/config/kernel.release"
printf '\0vermagic=9.9.1-zreplay SMP\0depends=\0' > "$obj/drivers/own.ko"
cp "$IMAGE" "$obj/arch/x86/boot/bzImage"
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that seems to have everything that a build needs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gcc", "ld", "flex", "bison", "bc", "pahole", "gzip", "awk", "perl"):
        (programs / name).write_text("#!/bin/sh\necho gcc 99.1\n")
    (programs / "make").write_text(_MAKE)
    for path in programs.iterdir():
        path.chmod(0o755)
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed (apt install git)")
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x400).to_bytes(2, "little")
    image[0x600:0x610] = b"9.9.1-zreplay #1"
    (tmp_path / "image").write_bytes(image)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGE", str(tmp_path / "image"))
    tarball(tmp_path / "linux-9.9.1.tar.xz", ("linux/Kbuild", b"k"), ("linux/mm/zswap.c", OLD.encode()))
    return tmp_path


def lab_build(machine: Path, *words: str) -> int:
    return main(["lab", "build", "--source", str(machine / "linux-9.9.1.tar.xz"), "-o", str(machine / "k"), *words])


def one_patch(machine: Path, *lines: int) -> str:
    return str(mailbox(machine / "m", posted("[PATCH v3 1/1] mm: count", diff("mm/zswap.c", OLD, changed(OLD, *lines)))))


def test_build_is_written_with_its_facts(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_build(machine, "--patches", one_patch(machine, 7), "--set", "CONFIG_ZSMALLOC_CHAIN_SIZE=16") == 0
    place = machine / "k"
    assert "9.9.1-zreplay of linux-9.9.1 with 1 patch, 1 source files changed" in capsys.readouterr().out
    assert (place / "tree/mm/zswap.c").read_text() == changed(OLD, 7)
    facts = json.loads((place / "build.json").read_text())
    tarball_digest = hashlib.sha256((machine / "linux-9.9.1.tar.xz").read_bytes()).hexdigest()
    assert facts["source"] == {"name": "linux-9.9.1", "version": "", "suite": "", "sha256": tarball_digest,
                               "in_index": False}
    assert [(row["number"], row["subject"]) for row in facts["patches"]] == [(1, "mm: count")]
    assert len(facts["patches"][0]["sha256"]) == 64
    assert facts["compiler"] == "gcc 99.1"
    assert facts["config_sha256"] == hashlib.sha256((place / "config").read_bytes()).hexdigest()
    assert facts["bzimage_sha256"] == hashlib.sha256((place / "bzImage").read_bytes()).hexdigest()
    assert options_of([(place / "config").read_text()])["CONFIG_ZSMALLOC_CHAIN_SIZE"] == "16"
    assert (place / "obj/who").read_text() == "zreplay@lab\n", "a banner goes into recordings"
    assert "CC      mm/zswap.o" in (place / "build.log").read_text()
    assert sorted(path.name for path in (place / "modules").rglob("*.ko")) == ["fake_iaa.ko", "movdir64b_emu.ko",
                                                                                "own.ko"]
    for made in (place, place / "bzImage"):
        kernel = own(made, None)
        assert (kernel.release, kernel.modules, kernel.config) == ("9.9.1-zreplay", place / "modules", place / "config")
        assert kernel.origin == "zreplay lab build of linux-9.9.1 with 1 patch"
        assert kernel.built == facts
    # These facts do not apply to the image of another build.
    (place / "bzImage").write_bytes((place / "bzImage").read_bytes() + b"x")
    assert read_facts(place / "bzImage") is None
    assert own(place, None).built is None


def test_a_series_on_another(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a series stands on comes first, in a mailbox of its own: numbers and subjects may be the same."""
    below = one_patch(machine, 7)
    above = str(mailbox(machine / "m2", posted("[PATCH v3 1/1] mm: count", diff("mm/zswap.c", changed(OLD, 7), changed(OLD, 7, 9)))))
    assert lab_build(machine, "--patches", below, "--patches", above) == 0
    assert (machine / "k/tree/mm/zswap.c").read_text() == changed(OLD, 7, 9)
    assert [row["number"] for row in json.loads((machine / "k/build.json").read_text())["patches"]] == [1, 1]
    assert lab_build(machine, "--patches", above, "--patches", below) == 2
    assert "does not apply" in capsys.readouterr().err


def test_build_on_a_build(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_build(machine, "--patches", one_patch(machine, 7)) == 0
    stamp = (machine / "k/tree/Kbuild").stat().st_mtime_ns
    assert lab_build(machine, "--patches", one_patch(machine, 7)) == 0
    assert lab_build(machine, "--patches", one_patch(machine, 7, 30)) == 0
    assert [line.partition(",")[2].split(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        " 1 source files changed for this build", " 0 source files changed for this build",
        " 1 source files changed for this build"]
    assert lab_build(machine) == 0
    assert (machine / "k/tree/mm/zswap.c").read_text() == OLD
    assert json.loads((machine / "k/build.json").read_text())["patches"] == []
    assert (machine / "k/tree/Kbuild").stat().st_mtime_ns == stamp, "the tree was not unpacked again"
    tarball(machine / "other.tar.xz", ("linux/Kbuild", b"k"))
    assert main(["lab", "build", "--source", str(machine / "other.tar.xz"), "-o", str(machine / "k")]) == 2
    assert "has the tree of linux-9.9.1; choose another directory" in capsys.readouterr().err


def test_build_that_fails_leaves_no_kernel(machine: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_build(machine) == 0
    monkeypatch.setenv("BROKEN", "1")
    assert lab_build(machine) == 2
    assert capsys.readouterr().err == (
        "zreplay: the kernel does not build: ../tree/mm/zswap.c:12:3: error: 'nosuch' undeclared (first use in this "
        f"function); see all of it in {machine / 'k/build.log'}.\n")
    assert not (machine / "k/bzImage").exists()
    assert not (machine / "k/build.json").exists()
    with pytest.raises(LabError, match="holds no bzImage"):
        own(machine / "k", None)


def test_a_second_build_of_the_directory_is_refused(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two makes in one directory once spoilt each other's objects."""
    (machine / "k").mkdir()
    handle = os.open(machine / "k", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert lab_build(machine) == 2
    assert "another build is running in" in capsys.readouterr().err
    os.close(handle)
    assert lab_build(machine) == 0


def test_patch_that_does_not_apply(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab_build(machine, "--patches", one_patch(machine, 7)) == 0
    before = content(SourceTree(machine / "k", print))
    elsewhere = changed(OLD, 9)
    bad = diff("mm/zswap.c", elsewhere, changed(elsewhere, 10))
    capsys.readouterr()
    assert lab_build(machine, "--patches", str(mailbox(machine / "m", posted("[PATCH] mm: bad", bad)))) == 2
    err = capsys.readouterr().err
    assert err.startswith("zreplay: patch 'mm: bad' does not apply to mm/zswap.c: hunk 1 of 1 (@@ -7,7 +7,7 @@)")
    assert err.count("\n") == 1
    assert content(SourceTree(machine / "k", print)) == before


def test_option_that_did_not_take(machine: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DROPPED", "CONFIG_ZSMALLOC_STAT")
    assert lab_build(machine) == 2
    assert "CONFIG_ZSMALLOC_STAT=y did not take: the configuration has n" in capsys.readouterr().err
    assert lab_build(machine, "--set", "CONFIG_ZSMALLOC_STAT=n") == 0
    assert lab_build(machine, "--set", "ZSMALLOC_STAT=n") == 2
    assert "'ZSMALLOC_STAT=n' is not a line of a kernel configuration" in capsys.readouterr().err


def test_wrong_mailboxes_cost_nothing(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "empty").write_bytes(b"")
    for name in ("empty", "nosuch"):
        assert lab_build(machine, "--patches", str(machine / name)) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (machine / "k").exists()


def test_directories_of_others_are_left_alone(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "k").mkdir()
    (machine / "k/thesis.txt").touch()
    assert lab_build(machine) == 2
    assert "is not a build of this program" in capsys.readouterr().err
    assert [path.name for path in (machine / "k").iterdir()] == ["thesis.txt"]


def test_interrupted_unpacking_begins_again(machine: Path) -> None:
    (machine / "k/.unpacking.x").mkdir(parents=True)
    (machine / "k/source.json").write_text("{")
    assert lab_build(machine) == 0


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"needs gcc, make, .*pahole.*libelf\.h.*; apt install .*build-essential.* dwarves"):
        check_needs()
    # Only headers.
    for name in kbuild._PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(LabError, match=r"needs libelf\.h, zlib\.h, not found here; apt install libelf-dev zlib1g-dev"):
        check_needs()


def test_options() -> None:
    assert options_of(["CONFIG_A=y\n# CONFIG_B is not set\n\n# words\n", "CONFIG_A=m", 'CONFIG_S="x y"']) == {
        "CONFIG_A": "m", "CONFIG_B": "n", "CONFIG_S": '"x y"'}
    for line in ("A=y", "CONFIG_A", "CONFIG_A =y", "$(shell x)"):
        with pytest.raises(LabError, match="not a line of a kernel configuration"):
            options_of([line])
    lab = options_of([FRAGMENT.read_text()])
    for name in ("ZSMALLOC_STAT", "ZSWAP", "CRYPTO_842", "MODULES", "FPROBE_EVENTS", "DEBUG_INFO_BTF", "MEMCG",
                 "TRANSPARENT_HUGEPAGE", "VIRTIO_BLK", "SERIAL_8250_CONSOLE"):
        assert lab[f"CONFIG_{name}"] == "y", name


@pytest.mark.parametrize(("lines", "said"), [
    (["  CC      x.o", "a.c:1: error: one", "b.c:2:1: fatal error: two", "make: *** [x] Error 2"],
     "a.c:1: error: one (and 1 more)"),
    (["ld: x.o: in function `f': undefined reference to `g'", "make[1]: *** [Makefile:1: vmlinux] Error 1"],
     "ld: x.o: in function `f': undefined reference to `g'"),
    (["make[1]: *** No rule to make target 'x'.  Stop."], "make[1]: *** No rule to make target 'x'. Stop."),
    (["something else", "make: *** [x] Error 2"], "something else (and 1 more)"),
    (["fixdep: error opening file: mm/.vmscan.o.d: No such file", "make[4]: *** Deleting file 'mm/vmscan.o'",
      "make[3]: *** Waiting for unfinished jobs....", "make[4]: *** [mm/built-in.a] Error 123"],
     "fixdep: error opening file: mm/.vmscan.o.d: No such file"),
    (["\x1b[31ma.c:1: error: red\x1b[0m"], " [31ma.c:1: error: red [0m"),
    ([], "make gave no reason"),
])
def test_complaints(lines: list[str], said: str) -> None:
    assert " ".join(compiler_complaint(line + "\n" for line in lines).split()) == " ".join(said.split())


# Sources


def package(version: str, suite: str = "sid", line: str = "7.2") -> Package:
    return Package(f"linux-source-{line}", version, f"pool/main/l/linux/x_{version}_all.deb", 9, "0" * 64, suite)


def test_choice_of_a_source() -> None:
    found = [package("7.2.9-1"), package("7.2.13-1"), package("7.2.11-1~bpo13+1"), package("6.12.107-1", line="6.12")]
    assert choose(found, "linux-source-7.2").version == "7.2.13-1"
    assert choose(found, "6.12").version == "6.12.107-1"
    assert choose(found, "linux-source-7.2=7.2.9-1").sha256 == "0" * 64
    gone = choose(found, "linux-source-6.19=6.19.8-1~bpo13+1")
    assert (gone.filename, gone.sha256) == ("pool/main/l/linux/linux-source-6.19_6.19.8-1~bpo13+1_all.deb", "")
    with pytest.raises(LabError, match=r"no suite has linux-source-5\.10"):
        choose(found, "5.10")
    for wanted in ("linux-source", "linux-source-7.2=../../x", "7.2;rm", ""):
        with pytest.raises(LabError, match="is not a source"):
            choose(found, wanted)


def test_off_line_the_newest_source_of_the_cache_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    for version in ("7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", "7.3.1-1"):
        (tmp_path / "sources" / f"linux-source-7.3_{version}_all.deb").write_text(version)
    (tmp_path / "sources" / "linux-source-7.3_7.3.9-1_all.deb.part").write_text("not yet")
    for wanted, version in (("linux-source-7.3", "7.3.4-1~bpo13+1"), ("7.3", "7.3.4-1~bpo13+1"), ("7.3=7.3.1-1", "7.3.1-1")):
        found = cached_source(wanted, tmp_path)
        assert found is not None
        assert (found.version, found.path.read_text()) == (version, version)
    assert cached_source("7.2", tmp_path) is None
    assert cached_source("7.3", tmp_path / "nosuch") is None
    with pytest.raises(LabError, match="is not a source"):
        cached_source("nosuch", tmp_path)


def test_sources_of_an_index(tmp_path: Path) -> None:
    stanza = ("Package: {}\nVersion: 7.2.13-1\nFilename: pool/main/l/linux/{}.deb\nSize: 12\nSHA256: ab\n\n")
    lines = "".join(stanza.format(name, name) for name in (
        "linux-source-7.2", "linux-source", "linux-image-7.2-amd64", "linux-source-7.2-x")).splitlines()
    assert [found.name for found in source_packages(lines, "sid")] == ["linux-source-7.2"]
    deb = tmp_path / "linux-source-7.2_7.2.13-1_all.deb"
    deb.write_bytes(b"deb")
    assert local_source(deb).title() == "linux-source-7.2 7.2.13-1"
    with pytest.raises(LabError, match="cannot be read"):
        local_source(tmp_path / "nosuch")


# Modules


def test_modules_of_a_job(tmp_path: Path) -> None:
    def modules(kernel: BootKernel, *words: str) -> tuple[str, ...]:
        parser = ArgumentParser()
        verb.add_parser(parser.add_subparsers())
        arguments = parser.parse_args(["lab", "run", "--kernel", "x", "-o", "x", *words])
        return job_of(arguments, kernel, arguments.compressor, arguments.folio, None).modules

    debian = BootKernel("x", tmp_path, None, None, "")
    built = BootKernel("x", tmp_path, None, None, "", {"release": "x"})
    assert modules(debian) == modules(built) == modules(debian, "--compressor", "deflate-iaa") == ()
    assert modules(built, "--compressor", "deflate-iaa") == ("fake_iaa",)
    assert modules(built, "--compressor", "deflate-iaa", "--module", "fake_iaa.ko fail_nth=3 fail_errno=5") == (
        "fake_iaa fail_nth=3 fail_errno=5",)
    assert modules(debian, "--module", "zram") == ("zram",)


@pytest.mark.parametrize("text", ["", "../x", "x;reboot", "x $(reboot)", "x a=$(reboot)", "x a='b'", "x a", "x =b"])
def test_modules_are_no_shell(text: str) -> None:
    from replay.cli.labcommon import _module

    with pytest.raises(ArgumentTypeError, match="is not the name of a module"):
        _module(text)


def test_modules_go_into_the_guest(tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (apt install busybox-static)")
    for name in ("fake_iaa", "lz4", "other"):
        (tmp_path / f"{name}.ko").write_bytes(b"\0vermagic=9.9 SMP\0depends=\0" + name.encode())
    kernel = BootKernel("9.9", tmp_path, tmp_path, None, "")
    found = {member.name: member.data for member in members(build(kernel, ["fake_iaa fail_nth=3 keep_length=1"]))}
    assert {name for name in found if name.startswith("modules/")} == {
        "modules/00-lz4.ko", "modules/01-fake_iaa.ko", "modules/01-fake_iaa.args"}
    assert found["modules/01-fake_iaa.args"] == b"fail_nth=3 keep_length=1"
    assert b'"${module%.ko}.args"' in found["init"]
    with pytest.raises(LabError, match="without a module nosuch"):
        build(kernel, ["nosuch"])


def test_the_module_ships() -> None:
    fake, other = kbuild._MODULES
    for path in (fake / "Makefile", fake / "fake_iaa.c", fake / "fixed_deflate.h", other / "Makefile",
                 other / "movdir64b_emu.c"):
        assert "SPDX-License-Identifier: GPL-2.0-or-later" in path.read_text().split("\n")[0]
    text = (fake / "fake_iaa.c").read_text()
    assert "noinline int fake_iaa_compress_page(const u8 *src," in text, "the recorder's probe takes its first argument"


@pytest.mark.lab
def test_real_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Takes 5 minutes of two CPUs and more; ZREPLAY_LAB_SOURCE names the source."""
    source = os.environ.get("ZREPLAY_LAB_SOURCE")
    if source is None:
        pytest.skip("builds a whole kernel: ask for it with ZREPLAY_LAB_SOURCE=linux-source-7.2")
    try:
        check_needs()
    except LabError as problem:
        pytest.skip(str(problem))
    assert main(["lab", "build", "--source", source, "-o", str(tmp_path / "k")]) == 0, capsys.readouterr().err
    assert main(["lab", "run", "--kernel", str(tmp_path / "k"), "--compressor", "deflate-iaa", "--workload",
                 "base --pages 512", "-o", str(tmp_path / "r.zr")]) == 0, capsys.readouterr().err
    assert main(["replay", str(tmp_path / "r.zr")]) == 0
    manifest = json.loads((tmp_path / "r.zr/manifest.json").read_text())
    assert manifest["kernel"]["build"]["source"]["name"] == source
    assert stat.S_ISDIR((tmp_path / "r.zr").stat().st_mode)
