# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels to boot: a distribution's, unpacked into a cache and never installed, or a developer's own."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces.lab.apt import Mirror
from traces.lab.debs import unpack
from traces.lab.errors import LabError
from traces.lab.kbuild import read_facts
from traces.lab.packages import KernelPackages, in_order

__all__ = ["BootKernel", "all_cached", "cached", "fetch", "modules_for", "own"]

#: Directories of modules that are kept: those a guest boots with, and the compressors; the rest is 20 times as large.
_KEPT: Final = ("kernel/crypto", "kernel/lib", "kernel/mm", "kernel/drivers/block", "kernel/drivers/virtio",
                "kernel/drivers/crypto/intel", "kernel/arch/x86/crypto", "kernel/drivers/dma/idxd")
_MANIFEST: Final = "kernel.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class BootKernel:
    """A kernel that can be booted.

    ``modules`` is the directory with ``kernel/`` in it and ``config`` its configuration, None where there is none;
    ``origin`` says in words where it is from; ``built`` is what ``zreplay lab build`` wrote next to it, None elsewhere.
    """

    release: str
    image: Path
    modules: Path | None
    config: Path | None
    origin: str
    built: dict[str, Any] | None = None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached(cache: Path, release: str) -> BootKernel | None:
    """Return a kernel of the cache, None when it is not there.

    :raises LabError: when a file of it is not what was unpacked
    """
    directory = cache / release
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        files: dict[str, str] = manifest["files"]
        for name, digest in files.items():
            if _digest(directory / name) != digest:
                raise LabError(f"{directory / name} was changed since it was unpacked; remove {directory}")
    except (OSError, ValueError, KeyError):
        return None
    return BootKernel(release, directory / "vmlinuz", directory / "modules", directory / "config", manifest["origin"])


def all_cached(cache: Path) -> list[KernelPackages]:
    """Return the kernels of the cache, the oldest first; their packages are not in it."""
    found = []
    for path in cache.glob(f"[!.]*/{_MANIFEST}"):
        try:
            manifest = json.loads(path.read_text())
            version = str(manifest["packages"][0]["version"])
            suite = re.fullmatch(r"Debian ([\w-]+), .*", manifest["origin"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
        found.append(KernelPackages(path.parent.name, version, suite[1] if suite else "", ()))
    return in_order(found)


def fetch(wanted: KernelPackages, mirror: Mirror, cache: Path, say: Say) -> BootKernel:
    """Return a kernel of the cache, fetched and unpacked first where it is not there.

    Release candidates of one line, and what they become, may all call themselves ``7.3-amd64``: one of another version
    than is wanted is replaced.

    :param say: called with a sentence on what is being done
    :raises LabError: when a package cannot be fetched or holds no kernel
    """
    have = cached(cache, wanted.release)
    if have is not None and any((one.release, one.version) == (wanted.release, wanted.version)
                                for one in all_cached(cache)):
        return have
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{wanted.release}.") as scratch:
        tree, ready = Path(scratch, "tree"), Path(scratch, "ready")
        packages = []
        for package in wanted.packages:
            digest = unpack(package, mirror, tree, say)
            packages.append({"name": package.name, "version": package.version, "sha256": digest,
                             "in_index": bool(package.sha256)})
        _collect(tree, ready, wanted.release)
        origin = f"Debian {wanted.suite}, {wanted.packages[0].name} {wanted.version}"
        files = {str(path.relative_to(ready)): _digest(path) for path in sorted(ready.rglob("*")) if path.is_file()}
        manifest = {"release": wanted.release, "origin": origin, "packages": packages, "files": files}
        (ready / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        target = cache / wanted.release
        shutil.rmtree(target, ignore_errors=True)
        ready.rename(target)
    kernel = cached(cache, wanted.release)
    if kernel is None:
        raise LabError(f"{cache / wanted.release} cannot be read back; see whether the disk is full")
    return kernel


def _collect(tree: Path, ready: Path, release: str) -> None:
    """Move what a guest needs out of an unpacked tree, wherever this release's packages put it."""
    modules = next((path for path in (tree / "usr/lib/modules" / release, tree / "lib/modules" / release)
                    if path.is_dir()), None)
    if modules is None:
        raise LabError(f"the packages of {release} hold no modules; try again later: the mirror may be in the "
                       "middle of an update")
    ready.mkdir()
    # Up to 7.1 below /boot, from 7.2 on next to the modules.
    for name, places in (("vmlinuz", (tree / f"boot/vmlinuz-{release}", modules / "vmlinuz")),
                         ("config", (tree / f"boot/config-{release}", modules / "config"))):
        place = next((path for path in places if path.is_file()), None)
        if place is None:
            raise LabError(f"the packages of {release} hold no {name}; try again later: the mirror may be in the "
                           "middle of an update")
        shutil.copyfile(place, ready / name)
    (ready / "modules").mkdir()
    for name in _KEPT:
        if (modules / name).is_dir():
            shutil.copytree(modules / name, ready / "modules" / name)
    for path in modules.glob("modules.builtin*"):
        shutil.copyfile(path, ready / "modules" / path.name)


def own(image: Path, modules: Path | None) -> BootKernel:
    """Return a kernel of the user's own.

    :param image: a bzImage, or the directory of a ``zreplay lab build``
    :param modules: directory with ``kernel/`` in it (``lib/modules/RELEASE`` after ``make modules_install``), the
        ``INSTALL_MOD_PATH`` above it, or a build tree; None for a kernel that has all it needs built in
    :raises LabError: when it is not what QEMU can boot
    """
    if image.is_dir():
        image = image / "bzImage"
        if not image.is_file():
            raise LabError(f"{image.parent} holds no bzImage; build one there with zreplay lab build, or name the file")
    facts = read_facts(image)
    if facts is not None and modules is None and (image.parent / "modules").is_dir():
        modules = image.parent / "modules"
    try:
        with image.open("rb") as stream:
            head = stream.read(1 << 16)
    except OSError as problem:
        raise LabError(f"{image} cannot be read ({problem.strerror}); name a bzImage") from None
    # The header of Documentation/arch/x86/boot.rst: its magic, and where the version's text is.
    if head[0x202:0x206] != b"HdrS":
        raise LabError(f"{image} is not an x86 bzImage; name the one that the build leaves at arch/x86/boot/bzImage")
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    release = head[at:at + 256].split(b"\0")[0].decode("ascii", "replace").split(" ")[0]
    if modules is not None and not modules.is_dir():
        raise LabError(f"{modules} is not a directory; name lib/modules/RELEASE or a build tree with --modules")
    if modules is not None:
        modules = _modules_of(modules, release)
    # A build tree's .config is three levels up from its bzImage.
    places = [image.with_name(".config"), image.with_name("config"), image.with_name(f"config-{release}")]
    places += [parent / ".config" for parent in image.resolve().parents[:4]]
    if modules is not None:
        # make modules_install leaves a link to the build tree.
        places += [modules / ".config", modules / "config", modules / "build" / ".config"]
    config = next((path for path in places if path.is_file()), None)
    return BootKernel(release, image, modules, config, _origin(image, facts), facts)


def _origin(image: Path, facts: dict[str, Any] | None) -> str:
    """Return where a kernel of the user's own is from, in words."""
    if facts is None:
        return str(image)
    source, patches = facts.get("source", {}), facts.get("patches", [])
    with_patches = f" with {len(patches)} patch{'es' if len(patches) != 1 else ''}" if patches else ""
    return f"zreplay lab build of {source.get('name', 'a source')} {source.get('version', '')}".rstrip() + with_patches


def _modules_of(directory: Path, release: str) -> Path:
    """Return where in a directory the modules of a release are: it may hold those of other releases as well.

    :raises LabError: when it holds none
    """
    for place in (directory / "lib/modules" / release, directory / "usr/lib/modules" / release, directory / release):
        if release and place.is_dir():
            return place
    # A build tree of a kernel with everything built in is accepted, too.
    if not any((directory / name).exists() for name in (".config", "modules.builtin")) \
            and next(directory.glob("**/*.ko*"), None) is None:
        raise LabError(f"{directory} holds no modules (*.ko); name lib/modules/{release} or a build tree with "
                       "--modules, or leave it out where all is built in")
    return directory


def _unpacked(path: Path) -> bytes:
    """Return a module's ELF image, whatever it is compressed with.

    :raises LabError: when it cannot be read
    """
    try:
        data = path.read_bytes()
        if data.startswith(b"\xfd7zXZ"):
            return lzma.decompress(data)
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            result = subprocess.run(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                    check=True)
            return result.stdout
    except (OSError, lzma.LZMAError, EOFError, subprocess.CalledProcessError) as problem:
        raise LabError(f"module {path} cannot be unpacked ({problem}); get it anew, or install zstd where it is "
                       "compressed so (apt install zstd)") from None
    return data


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def modules_for(kernel: BootKernel, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return (name, image) of modules with all they depend on, in an order in which they load.

    A name without a module is taken for built in.

    :raises LabError: when a module cannot be read, or was built for another release
    """
    if kernel.modules is None:
        return []
    index = {_name(path): path for path in kernel.modules.glob("**/*.ko*")
             if re.search(r"\.ko(\.xz|\.gz|\.zst)?$", path.name)}
    order: dict[str, bytes] = {}
    visiting: set[str] = set()

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in visiting or name not in index:
            return
        visiting.add(name)
        image = _unpacked(index[name])
        built_for = re.search(rb"\0vermagic=([^\0 ]+)", image)
        if built_for is not None and built_for[1].decode("ascii", "replace") != kernel.release:
            raise LabError(f"{index[name]} was built for {built_for[1].decode('ascii', 'replace')}, and "
                           f"{kernel.image} is {kernel.release}; name the modules of that build with --modules")
        # A module says itself what it needs: the packages hold no modules.dep, that is made at installation.
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + image)
        soft = re.findall(rb"\0softdep=pre: ([^\0]*)\0", b"\0" + image)
        wanted = depends[1].decode().split(",") if depends else []
        for other in (*wanted, *(word for group in soft for word in group.decode().split())):
            add(other)
        order[name] = image

    for name in names:
        add(name)
    return list(order.items())
