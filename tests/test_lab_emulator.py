# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's own QEMU: Debian's packages in the cache, started by their own loader; and the plugin for MOVDIR64B."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from traces.lab import apt, movdir64b
from traces.lab.emulator import Emulator, cached_emulator, check_emulator, fetch_emulator, own_emulator
from traces.lab.errors import LabError
from traces.lab.movdir64b import check_plugin, plugin

#: A loader that only says how it was called, and runs the program.
LINKER = '#!/bin/sh\n[ "$1" = --library-path ] || exit 3\nshift 2\nexec "$@"\n'
QEMU = """#!/bin/sh
case "$*" in
*--version*) echo "QEMU emulator version 11.1.9 (lab)"; echo Copyright;;
*vfio-user-pci,help*) echo "vfio-user-pci options:";;
*check=on*) echo "movdir64b: plugin API 7 to 7";;
esac
"""
#: As QEMU 7.2 answers.
OLD = """#!/bin/sh
case "$*" in
*--version*) echo "QEMU emulator version 7.2.22";;
*-device*) echo "qemu: Device 'vfio-user-pci' not found" >&2; exit 1;;
*-plugin*) echo "qemu: Could not load plugin x.so: plugin requires API version 7, but this QEMU supports only up to" \\
    "version 1" >&2; exit 1;;
esac
"""


def quiet(text: str) -> None:
    pass


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Suites:
    """A mirror of two suites, made of files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.indexes = {"trixie": "", "trixie-backports": ""}

    def add(self, suite: str, name: str, version: str, files: dict[str, str], depends: str = "") -> None:
        """Publish a package."""
        tree = self.place / "trees" / f"{name}-{version}"
        for file, text in files.items():
            if text.startswith("-> "):
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                (tree / file).symlink_to(text[3:])
            else:
                program(tree / file, text)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
                                             "Maintainer: x <x@x>\nDescription: x\n")
        deb = self.place / "mirror/pool" / f"{name}_{version}.deb"
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-b", str(tree), str(deb)], check=True, capture_output=True)
        data = deb.read_bytes()
        self.indexes[suite] += (f"Package: {name}\nVersion: {version}\nFilename: pool/{deb.name}\nSize: {len(data)}\n"
                                f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
                                + (f"Depends: {depends}\n" if depends else "") + "\n")
        for each, index in self.indexes.items():
            packed = lzma.compress(index.encode())
            place = self.place / "mirror/dists" / each
            (place / "main/binary-amd64").mkdir(parents=True, exist_ok=True)
            (place / "main/binary-amd64/Packages.xz").write_bytes(packed)
            (place / "InRelease").write_text(f"SHA256:\n {hashlib.sha256(packed).hexdigest()} {len(packed)} "
                                             "main/binary-amd64/Packages.xz\n")


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suites:
    """The libraries in one suite, QEMU in the other, and an older one in the first."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    helper = program(tmp_path / "apt-helper", '#!/bin/sh\nwhile [ "$1" != download-file ]; do shift; done\n'
                     'cp "$2" "$3" 2>/dev/null || { echo "E: not found" >&2; exit 1; }\n')
    monkeypatch.setattr(apt, "_HELPER", helper)
    monkeypatch.setattr(apt, "_signature", lambda release: "")
    made = Suites(tmp_path)
    library = "usr/lib/x86_64-linux-gnu"
    made.add("trixie", "libc6", "2", {f"{library}/ld-linux-x86-64.so.2": LINKER, f"{library}/libc.so.6": "c",
                                      "usr/lib64/ld-linux-x86-64.so.2": f"-> ../../{library}/ld-linux-x86-64.so.2",
                                      f"{library}/gconv/UTF-16.so": "unread", "etc/x": "unread"})
    made.add("trixie", "qemu-system-x86", "1", {"usr/bin/qemu-system-x86_64": OLD}, "libc6")
    made.add("trixie", "seabios", "1", {"usr/share/seabios/bios-256k.bin": "bios", "usr/share/doc/seabios/x": "unread"})
    return made


def mirror(suites: Suites) -> apt.Mirror:
    return apt.Mirror(str(suites.place / "mirror"), suites.place / "cache", quiet)


def test_qemu_comes_from_the_newer_suite_and_runs_by_its_own_loader(suites: Suites, tmp_path: Path) -> None:
    suites.add("trixie-backports", "qemu-system-x86", "2", {
        "usr/bin/qemu-system-x86_64": QEMU, "usr/share/qemu/kvmvapic.bin": "rom", "usr/bin/qemu-system-i386": "unread"},
        "libc6 (>= 2), seabios, adduser")
    cache = tmp_path / "cache"
    assert cached_emulator(cache) is None
    made = fetch_emulator(mirror(suites), cache, quiet)
    assert made.packages == {"libc6": "2", "qemu-system-x86": "2", "seabios": "1"}
    tree = cache / "qemu/tree"
    assert [str(path.relative_to(tree)) for path in sorted(tree.rglob("*")) if path.is_file()] == [
        "usr/bin/qemu-system-x86_64", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib64/ld-linux-x86-64.so.2", "usr/share/qemu/kvmvapic.bin",
        "usr/share/seabios/bios-256k.bin"]
    assert not any(path.is_symlink() for path in tree.rglob("*"))
    at = made.words.index("--library-path")
    assert made.words[at - 1] == str(tree / "usr/lib64/ld-linux-x86-64.so.2")
    assert made.words[at + 2] == str(tree / "usr/bin/qemu-system-x86_64") == str(made.program)
    assert made.describe() == "QEMU emulator version 11.1.9 (lab)"
    shutil.rmtree(tmp_path / "mirror")
    assert fetch_emulator(mirror(suites), cache, quiet) == made, "from the cache"
    (tree / "usr/lib/x86_64-linux-gnu/libc.so.6").write_text("other")
    with pytest.raises(LabError, match=r"libc\.so\.6 was changed since it was unpacked; remove "):
        cached_emulator(cache)


def test_qemu_without_the_device_is_not_kept(suites: Suites, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"version 7\.2\.22 has no device vfio-user-pci; take one of 11.1 or later"):
        fetch_emulator(mirror(suites), tmp_path / "cache", quiet)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["indexes"]


def test_a_package_that_is_not_what_the_index_names(suites: Suites, tmp_path: Path) -> None:
    (tmp_path / "mirror/pool/libc6_2.deb").write_bytes(b"evil")
    with pytest.raises(LabError, match="is not the file that the index names"):
        fetch_emulator(mirror(suites), tmp_path / "cache", quiet)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["indexes"]


def test_suites_without_qemu(suites: Suites, tmp_path: Path) -> None:
    suites.indexes["trixie"] = ""
    suites.add("trixie", "other", "1", {"x": "x"})
    with pytest.raises(LabError, match="trixie and trixie-backports have no package qemu-system-x86; name another"):
        fetch_emulator(mirror(suites), tmp_path / "cache", quiet)


def test_a_qemu_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = program(tmp_path / "new", QEMU), program(tmp_path / "old", OLD)
    check_emulator(own_emulator(new))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert own_emulator(Path("new")) == Emulator(new, (str(new),))
    check_plugin(own_emulator(new), tmp_path / "x.so")
    with pytest.raises(LabError, match=r"has no device vfio-user-pci; take one of 11\.1 or later that was built with it"):
        check_emulator(own_emulator(old))
    with pytest.raises(LabError, match=r"does not take the plugin for MOVDIR64B \(qemu: Could not load plugin x.so: "
                                       r".* supports only up to version 1\); take one of 11.1"):
        check_plugin(own_emulator(old), tmp_path / "x.so")
    with pytest.raises(LabError, match="nosuch is not a program; name qemu-system-x86_64"):
        own_emulator(tmp_path / "nosuch")
    broken = program(tmp_path / "broken", "#!/bin/sh\necho no library >&2\nexit 127\n")
    with pytest.raises(LabError, match=r"broken does not run \(no library\); name another QEMU with --qemu"):
        check_emulator(own_emulator(broken))


# The plugin


def needs_compiler() -> None:
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no compiler is installed")


def test_the_plugin_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    said: list[str] = []
    made = plugin(tmp_path, said.append)
    assert made is not None
    assert said == ["compiling the plugin for MOVDIR64B"]
    needed = subprocess.run(["readelf", "-d", str(made)], text=True, capture_output=True, check=False).stdout
    assert "NEEDED" not in needed, "it is loaded into a QEMU with another C library"
    assert plugin(tmp_path, said.append) == made
    assert len(said) == 1
    made.write_bytes(b"evil")
    again = plugin(tmp_path, said.append)
    assert again == made
    assert made.read_bytes() != b"evil"
    monkeypatch.setattr(movdir64b, "_COMPILERS", ("no-such-compiler",))
    assert plugin(tmp_path, said.append) == made, "the cache needs no compiler"
    assert plugin(tmp_path / "other", said.append) is None


def test_a_compiler_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = program(tmp_path / "cc", "#!/bin/sh\necho 'x.c:1: fatal error: stdio.h: No such file' >&2\nexit 1\n")
    monkeypatch.setattr(movdir64b, "_COMPILERS", (str(compiler),))
    with pytest.raises(LabError, match=r"\(x.c:1: fatal error: stdio.h: No such file\); apt install gcc libc6-dev"):
        plugin(tmp_path / "cache", quiet)
    assert list((tmp_path / "cache/plugins").iterdir()) == []


#: For a host program in QEMU's place: the plugin's callback gets an instruction with these registers and memory.
HARNESS = r"""
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include PLUGIN

#define HERE 0x7000000

static const uint8_t *code_now;
static size_t size_now;
static uint64_t memory_at;

bytes *g_byte_array_new(void) { bytes *b = calloc(1, sizeof(*b)); b->data = calloc(1, 256); return b; }
void g_byte_array_unref(bytes *b) { free(b->data); free(b); }
char *g_array_free(bytes *b, int all) { (void)all; free(b->data); free(b); return 0; }
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*f)(void *, void *), void *d) { (void)id; (void)f; (void)d; }
size_t qemu_plugin_tb_n_insns(const void *b) { (void)b; return 1; }
void *qemu_plugin_tb_get_insn(const void *b, size_t k) { (void)b; (void)k; return (void *)code_now; }
size_t qemu_plugin_insn_data(const void *i, void *to, size_t n)
{
	(void)i;
	n = n < size_now ? n : size_now;
	memcpy(to, code_now, n);
	return n;
}
uint64_t qemu_plugin_insn_vaddr(const void *i) { (void)i; return HERE; }
static bool seen;
void qemu_plugin_register_vcpu_insn_exec_cb(void *i, void (*f)(unsigned int, void *), int flags, void *d)
{
	(void)i; (void)f; (void)d;
	seen = flags == RW_REGS_PC;
}
bytes *qemu_plugin_get_registers(void)
{
	static const char *const all[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
		"r12", "r13", "r14", "r15", "rip" };
	bytes *b = calloc(1, sizeof(*b));
	struct reg *rows = calloc(17, sizeof(*rows));

	for (int k = 0; k < 17; k++)
		rows[k] = (struct reg){ .handle = (void *)(uintptr_t)(k + 1), .name = all[k] };
	b->data = (uint8_t *)rows;
	b->len = 17;
	return b;
}
/* The value of a register is 0x10000 times its place in that list, counted from 1. */
bool qemu_plugin_read_register(void *h, bytes *b)
{
	uint64_t value = 0x10000 * (uint64_t)(uintptr_t)h;

	memcpy(b->data, &value, 8);
	b->len = 8;
	return true;
}
bool qemu_plugin_read_memory_vaddr(uint64_t at, bytes *b, size_t n)
{
	if (at == HERE) {
		if (n > size_now)
			n = size_now;
		memcpy(b->data, code_now, n);
		b->len = 16;
		return true;
	}
	memory_at = at;
	b->len = n;
	return true;
}
bool qemu_plugin_translate_vaddr(uint64_t at, uint64_t *to) { *to = at + 1; return true; }
static uint64_t pc;
void qemu_plugin_set_pc(uint64_t at) { pc = at; }

int main(int argc, char **argv)
{
	for (int k = 1; k < argc; k++) {
		uint8_t code[16] = { 0 };
		int n = 0;

		for (const char *p = argv[k]; *p; p += 2)
			sscanf(p, "%2hhx", code + n++);
		code_now = code;
		size_now = n;
		seen = false;
		pc = memory_at = 0;
		on_translation(0, 0);
		on_movdir64b(0, (void *)HERE);
		printf("%d %d %llx %llx\n", n, seen, (unsigned long long)(pc ? pc - HERE : 0), (unsigned long long)memory_at);
	}
}
"""


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Run the plugin's decoder on instructions: length, found, length as decoded, address of the source."""
    needs_compiler()
    source = tmp_path / "harness.c"
    source.write_text(HARNESS)
    subprocess.run(["cc", "-w", f'-DPLUGIN="{movdir64b._SOURCE}"', "-o", str(tmp_path / "harness"), str(source)],
                   check=True)

    def run(*codes: str) -> list[list[str]]:
        done = subprocess.run([str(tmp_path / "harness"), *codes], text=True, capture_output=True, check=True)
        return [line.split() for line in done.stdout.splitlines()]

    return run


@pytest.mark.parametrize(("code", "source"), [
    ("660f38f802", 0x40000),              # (%rdx), rax: as the kernel spells it
    ("660f38f807", 0x60000),              # (%rdi)
    ("66410f38f807", 0x100000),           # (%r15)
    ("66440f38f802", 0x40000),            # (%rdx), r8
    ("660f38f84240", 0x40040),            # 0x40(%rdx)
    ("660f38f842f0", 0x3fff0),            # -0x10(%rdx)
    ("660f38f88200010000", 0x40100),      # 0x100(%rdx)
    ("660f38f8048a", 0x40000 + 4 * 0x30000),        # (%rdx,%rcx,4)
    ("66420f38f8048a", 0x40000 + 4 * 0xa0000),      # (%rdx,%r9,4)
    ("660f38f8448a08", 0x40000 + 4 * 0x30000 + 8),  # 8(%rdx,%rcx,4)
    ("660f38f80424", 0x80000),            # (%rsp)
    ("660f38f8042500100000", 0x1000),     # an absolute address
    ("660f38f80500010000", 0x7000000 + 9 + 0x100),  # 0x100(%rip)
])
def test_operands_are_decoded(decoded: Callable[..., list[list[str]]], code: str, source: int) -> None:
    length, seen, went, at = decoded(code)[0]
    assert (int(length), seen, int(went, 16), int(at, 16)) == (len(code) // 2, "1", len(code) // 2, source)


def test_what_is_left_to_the_processor(decoded: Callable[..., list[list[str]]]) -> None:
    found = decoded("660f38f8c2", "0f38f802", "f30f38f802", "0f38f902", "9090909090")
    assert found[0][1:3] == ["1", "0"], "no memory operand"
    assert [row[1] for row in found[1:]] == ["0"] * 4, "ENQCMDS, MOVDIRI and others are not it"
