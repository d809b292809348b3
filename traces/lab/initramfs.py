# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's initramfs: busybox, this machine's Python with only the modules it imports, kernel modules, zreplay."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from traces.lab.cpio import CpioWriter, directories
from traces.lab.errors import LabError
from traces.lab.kernels import BootKernel, modules_for
from traces.lab.roots import GUEST_ROOT, merged

__all__ = ["GUEST_CONTENT", "GUEST_SCRIPT", "MODULES", "WORK", "build", "content_archive", "files_archive",
           "job_archive", "stdlib_imports"]

#: Where a workload finds the page dump or directory that it takes its pages from.
GUEST_CONTENT: Final = "/content"
#: Where it finds the sequence that it runs.
GUEST_SCRIPT: Final = "/script.json"
#: Where a user's command runs, and finds the files that came with it.
WORK: Final = "/srv"

#: Modules that are loaded where the kernel does not have them built in: disks, and every compressor of zswap.
MODULES: Final = ("virtio_pci", "virtio_blk", "zsmalloc", "lz4", "lz4hc", "zstd", "deflate", "lzo", "lzo-rle", "842")
_APPLETS: Final = ("sh", "chroot", "cp", "ifconfig", "mount", "mkdir", "ln", "insmod", "mkswap", "swapon", "swapoff",
                   "dmesg", "poweroff", "uname", "cat", "ls", "sync", "sleep", "timeout")
#: How a kernel comes to have the modules of an emulated IAA.
_BUILT: Final = ("take a distribution's, or build it with CONFIG_INTEL_IDXD=m and CONFIG_CRYPTO_DEV_IAA_CRYPTO=m in "
                 "zreplay lab build")
#: After the bus and before its drivers: a device then waits for its configuration, instead of taking idxd's defaults.
_FIRST: Final = "idxd_bus"
_BY_HAND: Final = b"echo 0 > /sys/bus/dsa/drivers_autoprobe\n"
_PACKAGE: Final = Path(__file__).resolve().parent.parent
#: Packages of this project that go along; without traces/__init__.py, which would import pandas.
_PARTS: Final = ("events.py", "workload", "record", "lab/__init__.py", "lab/guest.py", "lab/guestcommon.py",
                 "lab/guesttasks.py", "lab/guestcommand.py", "lab/guestiaa.py", "lab/channel.py")

_INIT: Final = """#!/bin/sh
export PATH=/bin:/usr/bin:/sbin HOME=/ PYTHONPATH=/zreplay
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
# Memory that is never swapped: the capture must not pass through what it records.
mount -t ramfs out /out
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in /modules/*.ko; do
    [ -e "$module" ] || continue
    insmod "$module" $(cat "${module%%.ko}.args" 2>/dev/null) || echo "zreplay-lab: $module was not loaded"
    [ -e "${module%%.ko}.after" ] && . "${module%%.ko}.after"
done
if [ -d /guest ]; then
    # Every program of its root finds what it finds on a box; files in a tmpfs may be swapped, as there.
    ifconfig lo 127.0.0.1 up
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    for name in stdin:0 stdout:1 stderr:2; do
        ln -s /proc/self/fd/${name#*:} /dev/${name%%:*}
    done
    mount --bind /guest /guest
    for part in proc sys dev; do
        mount --rbind /$part /guest/$part
    done
    mount -t tmpfs -o mode=755 tmpfs /guest/run
    mkdir -p /guest/run/lock
    mount -t tmpfs -o mode=1777 tmpfs /guest/tmp
    if [ -e /systemd ]; then
        # It must be process 1, and have a root that is one; processes started before keep the old root.
        ( PYTHONDONTWRITEBYTECODE=1 "%s" -S -s -m traces.lab.guest; sync; poweroff -f ) </dev/null &
        cd /guest
        mount --move . /
        unset PYTHONPATH
        exec chroot . /usr/lib/systemd/systemd --unit=basic.target </dev/null
    fi
fi
if [ -d /tools ]; then
    for part in proc dev out zreplay boot; do
        mount --bind /$part /tools/$part
    done
    mount --rbind /sys /tools/sys
    [ -e /content ] && cp -r /content /tools/
    cp /job.json /tools/
    [ -e /script.json ] && cp /script.json /tools/
    # That Python comes without its compiled modules, and keeps those that it makes.
    chroot /tools /usr/bin/python3 -S -s -m traces.lab.guest
else
    PYTHONDONTWRITEBYTECODE=1 "%s" -S -s -m traces.lab.guest
fi
sync
poweroff -f
"""

# Runs in the interpreter that goes along: lists the files that the imports need, and compiles them.
_SURVEY: Final = """
import importlib, json, os, py_compile, sys
names, out = json.loads(sys.argv[1]), sys.argv[2]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
import importlib.util
files, compiled = set(), {}
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__file__", None) or (spec and spec.has_location and spec.origin)
    if path and os.path.isfile(path):
        files.add(path)
for path in sorted(files):
    if path.endswith(".py"):
        cached = importlib.util.cache_from_source(path)
        target = os.path.join(out, "%d.pyc" % len(compiled))
        py_compile.compile(path, target, doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        compiled[cached] = target
print(json.dumps({"files": sorted(files), "compiled": compiled}))
"""


def stdlib_imports(sources: Iterable[Path]) -> set[str]:
    """Return the modules of the standard library that sources import, anywhere in them."""
    names: set[str] = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module)
    return {name for name in names if name.split(".")[0] in sys.stdlib_module_names}


def _sources() -> dict[str, Path]:
    """Return name in the guest -> file of this project's part of it."""
    found = {}
    for part in _PARTS:
        path = _PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[f"zreplay/traces/{file.relative_to(_PACKAGE)}"] = file
    return found


def _python(archive: CpioWriter, sources: Iterable[Path]) -> str:
    """Add the interpreter with what the sources import; returns its path in the guest."""
    # Not the one of a virtual environment: that is a link to it.
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    names = sorted(stdlib_imports(sources) | {"encodings.ascii", "encodings.latin_1", "encodings.utf_8", "runpy",
                                              "traceback", "zipimport"})
    with tempfile.TemporaryDirectory() as scratch:
        result = subprocess.run([python, "-I", "-S", "-c", _SURVEY, json.dumps(names), scratch], text=True,
                                capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if result.returncode:
            raise LabError(f"{python} cannot be taken into the guest ({result.stderr.strip().splitlines()[-1:]}); "
                           "run zreplay with another Python")
        survey = json.loads(result.stdout)
        for path in (python, *survey["files"]):
            _host_file(archive, path)
        for cached, compiled in survey["compiled"].items():
            archive.file(cached, Path(compiled).read_bytes())
    for path in _linked(python, *(path for path in survey["files"] if ".so" in Path(path).name)):
        _host_file(archive, path)
    return python


def _linked(*programs: str) -> list[str]:
    """Return the libraries of programs and the dynamic linker, by the names under which programs look for them."""
    try:
        listing = subprocess.run(["ldd", *programs], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 stdin=subprocess.DEVNULL, check=False).stdout
    except FileNotFoundError:
        raise LabError("ldd is missing; apt install libc-bin") from None
    return sorted({path for path in re.findall(r"(/[^\s:]+)", listing) if os.path.isfile(path)})


def _host_file(archive: CpioWriter, path: str) -> None:
    real = os.path.realpath(path)
    archive.file(path, Path(real).read_bytes(), os.stat(real).st_mode & 0o777)


def build(kernel: BootKernel, modules: Iterable[str] = (), iaa: Iterable[str] = ()) -> bytes:
    """Return the initramfs for a kernel, without a job.

    :param modules: modules to load after :data:`MODULES`, each a name with its parameters
    :param iaa: names of modules to load after these: of the emulated IAA, which the guest's work sets up
    :raises LabError: when busybox or the recorder is missing, or one of ``modules`` and ``iaa``
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox is missing; apt install qemu-system-x86 busybox-static")
    archive = CpioWriter()
    for name in ("proc", "sys", "dev", "tmp", "out", "etc", "boot", "modules"):
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    archive.file("bin/busybox", Path(busybox).read_bytes(), 0o755)
    for path in _linked(busybox):  # none where it is busybox-static
        _host_file(archive, path)
    for applet in _APPLETS:
        archive.symlink(f"bin/{applet}", "busybox")
    sources = _sources()
    if not any(name.startswith("zreplay/traces/record/") for name in sources):
        raise LabError(f"{_PACKAGE / 'record'} is missing; use a whole checkout or installation of zreplay")
    archive.file("zreplay/traces/__init__.py", b"")
    for name, source in sources.items():
        archive.file(name, source.read_bytes())
    python = _python(archive, sources.values())
    parameters = {words[0].replace("-", "_"): words[1:] for words in map(str.split, modules)}
    iaa = tuple(iaa)
    found = modules_for(kernel, (*MODULES, *parameters, *iaa))
    missing = set(parameters) - {name for name, _ in found}
    if missing:
        raise LabError(f"{kernel.release} comes without a module {min(missing)}; name a directory of your own with "
                       "--modules, or a kernel made by zreplay lab build for fake_iaa")
    without = [name for name in iaa if name not in {name for name, _ in found}]
    if without:
        raise LabError(f"{kernel.release} comes without a module {without[0]}, which the emulated IAA needs; {_BUILT}")
    for number, (name, image) in enumerate(found):
        archive.file(f"modules/{number:02d}-{name}.ko", image)
        if iaa and name == _FIRST:
            archive.file(f"modules/{number:02d}-{name}.after", _BY_HAND)
        if parameters.get(name):
            archive.file(f"modules/{number:02d}-{name}.args", " ".join(parameters[name]).encode())
    if kernel.config is not None:
        # Where a recorder on any box looks for it.
        archive.file(f"boot/config-{kernel.release}", kernel.config.read_bytes())
    archive.file("init", (_INIT.replace("%s", python).replace("%%", "%")).encode(), 0o755)
    return archive.finish()


def job_archive(job: dict[str, Any], script: str = "") -> bytes:
    """Return a second archive, to follow the first, with what the guest is to do, and its sequence if there is one."""
    archive = CpioWriter()
    archive.file("job.json", json.dumps(job).encode())
    if job.get("systemd"):
        # For the shell, which reads no JSON.
        archive.file("systemd", b"")
    if script:
        archive.file(GUEST_SCRIPT.lstrip("/"), script.encode())
    return archive.finish()


def files_archive(files: Iterable[tuple[Path, str]], root: Path) -> bytes:
    """Return an archive of a user's files for the command's root, to follow the root's archive.

    :param files: (path here, path there): a directory goes with all below it; links in it stay links, modes stay
    :param root: the root's archive
    :raises LabError: when one cannot be read
    """
    archive = CpioWriter(there=directories(root))
    archive.directory(f"{GUEST_ROOT}{WORK}")
    for path, there in files:
        # A path that the user names is followed, whatever link leads to it.
        path = Path(os.path.realpath(path))
        try:
            for file in (path, *sorted(path.rglob("*"))) if path.is_dir() else (path,):
                _user_file(archive, file, f"{GUEST_ROOT}/{merged(there)}/{file.relative_to(path)}")
        except OSError as problem:
            raise LabError(f"{problem.filename or path} cannot be read ({problem.strerror}); name files and "
                           "directories with --file") from None
    return archive.finish()


def _user_file(archive: CpioWriter, path: Path, there: str) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        archive.symlink(there, os.readlink(path))
    elif stat.S_ISDIR(status.st_mode):
        archive.directory(there, stat.S_IMODE(status.st_mode))
    elif stat.S_ISREG(status.st_mode):
        archive.file(there, path.read_bytes(), stat.S_IMODE(status.st_mode), mtime=int(status.st_mtime))


def content_archive(path: Path, limit: int) -> bytes:
    """Return an archive with a file, or all files below a directory, for the guest's :data:`GUEST_CONTENT`.

    :param limit: bytes that it may have: all of it takes the guest's memory
    :raises LabError: when it cannot be read or is longer
    """
    archive = CpioWriter()
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        if not size:
            raise LabError(f"{path} holds no pages: it is empty; name a page dump or a directory")
        if size > limit:
            raise LabError(f"{path} has {size:,} bytes, and a quarter of the guest's memory is {limit:,}; give more "
                           "--memory or fewer files")
        for file in files:
            name = GUEST_CONTENT if file == path else f"{GUEST_CONTENT}/{file.relative_to(path)}"
            archive.file(name, file.read_bytes())
    except OSError as problem:
        raise LabError(f"{path} cannot be read ({problem.strerror}); name a page dump or a directory") from None
    return archive.finish()
