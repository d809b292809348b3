# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay --version``: the version of zreplay and of everything that computes its numbers."""

from __future__ import annotations

import argparse
import importlib.util
import platform
from typing import Any

__all__ = ["ShowVersions", "version", "versions"]

#: Packages that decode, store, compile or keep simulated time, in the order printed.
_PACKAGES = ("numpy", "pyarrow", "pandas", "numba", "llvmlite", "scipy", "pyelftools", "simpy")


def version() -> str:
    """Return the version of the installed distribution."""
    return _version("zreplay") or "uninstalled checkout"


def _version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    # Late: only whoever asks for versions waits for what reads them.
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> list[str]:
    """Return lines: zreplay, Python and packages, then each compressor with the library that computes it."""
    from model.crypto import KERNEL_LINES, UnsupportedCompressor, compressor_for
    from model.crypto.libraries import LIBRARIES

    # Where Numba is, what it compiles is the same for every kernel line, and is named without loading it.
    own = LIBRARIES if importlib.util.find_spec("numba") is not None else {}

    lines = [f"zreplay {version()}"]
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    parts += [f"{name} {_version(name) or 'missing'}" for name in _PACKAGES]
    lines.append(", ".join(parts))
    for name in ("zstd", "lz4", "lz4hc", "lzo", "lzo-rle", "842", "deflate", "deflate-iaa"):
        by_library: dict[str, list[str]] = {}
        for line in KERNEL_LINES:
            try:
                library = _library(name, own[name] if name in own else compressor_for(name, line).ident)
            except UnsupportedCompressor as problem:
                library = f"none ({problem})"
            by_library.setdefault(library, []).append(line.removeprefix("mainline-"))
        for library, kernels in by_library.items():
            of = "" if len(by_library) == 1 else f" (Linux {kernels[0]}" + (
                f" to {kernels[-1]})" if len(kernels) > 1 else ")")
            lines.append(f"  {name:<12}{library}{of}")
    return lines


def _library(name: str, ident: str) -> str:
    """Return the library's name and version out of a compressor's ident: what stands before its parameters."""
    words = []
    for word in ident.removeprefix(name).split():
        if "=" in word:
            break
        words.append(word)
    if words[:1] == ["libzstd"] and "backports.zstd" in ident:
        binding = _version("backports.zstd")
        words[-1] = f"(backports.zstd {binding})" if binding is not None else words[-1]
    text = " ".join(words)
    return f"zreplay's own code, {text.removeprefix('own ')}" if text.startswith("own ") else text


class ShowVersions(argparse.Action):
    """Prints the versions, which are looked up only then, and leaves."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print them."""
        print("\n".join(versions()))
        parser.exit(0)
