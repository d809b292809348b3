# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay has to know of the recorded box apart from its events, and which command on that box prints it.

A trace file alone says none of it.  :func:`missing` names everything that a recording does not say, and
:func:`read_settings` and :func:`put` take these facts from the user, at import or afterwards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces import jsontext
from traces.errors import BadInput
from traces.leftovers import Unfinished
from traces.machine import OURS, check_kernel, check_machine, check_page_size
from traces.record.oserrors import next_step
from traces.recording import Recording

__all__ = ["FACTS", "Fact", "how_to_set", "missing", "put", "read_settings", "set_facts"]

_ZSWAP: Final = "cat /sys/module/zswap/parameters/"


@dataclass(frozen=True)
class Fact:
    """One fact: its ``key`` for ``--set``, the ``command`` that prints it, and what is ``assumed`` without it.

    ``form``: what its value has to look like, whole; ``least`` and ``most``: the range of a number.
    """

    key: str
    command: str
    assumed: str = ""
    form: str = r"[0-9]{1,15}"
    least: int = 0
    most: int = 1 << 48


FACTS: Final = (
    Fact("kernel", "uname -r", form=r"[\w.+~-]{1,64}"),
    Fact("compressor", _ZSWAP + "compressor", form=r"[\w-]{1,64}"),
    Fact("totalram-pages", "awk '$1 == \"managed\" {n += $2} END {print n}' /proc/zoneinfo", least=1),
    Fact("chain-size", "grep ZSMALLOC_CHAIN_SIZE /boot/config-$(uname -r)", "8", least=4, most=16),
    Fact("max-pool-percent", _ZSWAP + "max_pool_percent", "20", most=100),
    Fact("accept-threshold-percent", _ZSWAP + "accept_threshold_percent", "90", most=100),
    Fact("page-size", "getconf PAGESIZE", "4096", least=1),
    Fact("machine", "uname -m", "x86_64", form=r"\w{1,32}"),
)
_BY_KEY: Final = {fact.key: fact for fact in FACTS}
_PARAMS: Final = frozenset(("max-pool-percent", "accept-threshold-percent"))


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def missing(manifest: dict[str, Any]) -> list[Fact]:
    """Return the facts that a recording does not say, those that a replay needs most first."""
    kernel, config = manifest["kernel"], manifest["config"]
    params, options = _table(config.get("params")), _table(kernel.get("options"))
    words = " ".join(str(kernel.get(key) or "") for key in ("machine", "release", "uname"))
    ours = re.search(rf"\b({'|'.join(OURS)})\b", words) is not None
    said = {"kernel": kernel.get("version") or kernel.get("release"), "compressor": config.get("compressor"),
            "totalram-pages": config.get("totalram_pages"), "chain-size": config.get("chain_size"),
            "page-size": ours or kernel.get("page_size") or options.get("CONFIG_PAGE_SHIFT"),
            "machine": ours or kernel.get("machine"),
            **{key: params.get(key.replace("-", "_")) for key in _PARAMS}}
    return [fact for fact in FACTS if said[fact.key] in (None, "", False)]


def how_to_set(path: str | os.PathLike[str], facts: Iterable[Fact]) -> str:
    """Return the command that sets facts of an existing recording, for messages."""
    words = " ".join(f"--set {fact.key}=..." for fact in facts)
    return f"zreplay import {os.fspath(path)} {words}"


def read_settings(settings: Iterable[str]) -> dict[str, str | int]:
    """Return key -> value of ``KEY=VALUE`` words; of a key that comes twice the last counts.

    :raises BadInput: for an unknown key, or a value that cannot be that fact's
    """
    out: dict[str, str | int] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        fact = _BY_KEY.get(key.strip().replace("_", "-"))
        if fact is None or not equals:
            raise BadInput(f"--set {setting[:80]}", "", "is not KEY=VALUE of a known fact",
                           f"give one of {', '.join(_BY_KEY)}")
        value = value.strip()
        is_number = fact.form == Fact.form
        if not re.fullmatch(fact.form, value) or (is_number and not fact.least <= int(value) <= fact.most):
            wanted = f"a number from {fact.least} to {fact.most}" if is_number else "such a name"
            raise BadInput(f"--set {setting[:80]}", "", f"is not {wanted}", f"see what '{fact.command}' prints")
        out[fact.key] = int(value) if is_number else value
    return out


def put(kernel: dict[str, Any], config: dict[str, Any], values: dict[str, str | int]) -> None:
    """Put facts into a manifest's ``kernel`` and ``config``.

    :raises BadInput: when they say that the machine is one that is not modelled
    """
    for key, value in values.items():
        if key == "kernel":
            kernel["version"] = kernel["release"] = value
            check_kernel("--set", kernel, {})
        elif key == "machine":
            check_machine("--set", key, str(value))
            kernel[key] = value
        elif key == "page-size":
            check_page_size("--set", key, int(value))
            kernel["page_size"] = value
        elif key in _PARAMS:
            config["params"] = {**_table(config.get("params")), key.replace("-", "_"): str(value)}
        else:
            config[key.replace("-", "_")] = value


def set_facts(path: str | os.PathLike[str], values: dict[str, str | int]) -> Recording:
    """Set facts of an existing recording: only its manifest is written anew, and says so in a note.

    :raises BadInput: when it is not a recording, cannot be written, or the facts are of a machine that is not modelled
    """
    manifest = Recording(path, verify=False).manifest
    put(manifest["kernel"], manifest["config"], values)
    said = ", ".join(f"{key}={value}" for key, value in values.items())
    manifest["notes"] = [*manifest.get("notes", ()), f"set after the import: {said}"]
    place = Path(path) / "manifest.json"
    try:
        new = Unfinished(place)
        try:
            new.path.write_text(jsontext.dumped(manifest))
            os.replace(new.path, place)
        finally:
            new.path.unlink(missing_ok=True)
            new.done()
    except OSError as problem:
        raise BadInput(path, "manifest.json", f"cannot be written ({problem.strerror})",
                       next_step(problem.errno, "copy the recording to where you may write")) from None
    return Recording(path, verify=False)
