# SPDX-License-Identifier: GPL-2.0-or-later
"""What a box can do with zreplay, and the one command that adds what it lacks.

Everything here looks and nothing changes: no mount, no module, no probe, no file.  (Compressors compiled by Numba are
compiled when they are tried, and Numba keeps that code where it always does.)
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from replay.tools.requirements import missing as _missing
from replay.tools.requirements import pip as _pip
from replay.tools.requirements import requirements
from replay.tools.requirements import split as _split
from traces.record.box import Box
from traces.record.errors import CannotRecord
from traces.record.plan import Planned, as_json, plan

__all__ = ["ABILITIES", "BYTES_PER_EVENT", "EVENTS_PER_SECOND", "Capability", "Host", "State", "abilities", "disk",
           "examine", "requirements", "summary", "system"]

State = Literal["yes", "no", "unknown"]

#: Events a second of one CPU that does little else than swap: 146,770 in 6.50 s of a guest's CPU that executes 500
#: million instructions a second (docs/verbs/dev-overhead.md, "tracefs none"); a CPU that executes more has more.
EVENTS_PER_SECOND: Final = 22_600
#: Bytes per event by ``--pages``: (of the raw capture before it is packed, of the recording made of it).  The captures
#: are lab runs on 7.2.13 with lz4, base --pages 2048 (39.9 bytes of rings, 3.2 of page hashes, 134 of pages); the
#: recordings are those of docs/verbs/dev-overhead.md.  Both are on disk until the import is over.
BYTES_PER_EVENT: Final[Mapping[str, tuple[float, float]]] = {"none": (39.9, 7.6), "hash": (43.1, 8.6),
                                                             "full": (176.1, 34.2)}

#: What each package is called, by the package manager that has it.
_PACKAGES: Final = {
    "apt-get": {"qemu": "qemu-system-x86", "busybox": "busybox-static", "trace-cmd": "trace-cmd",
                "bcc": "python3-bpfcc"},
    "dnf": {"qemu": "qemu-system-x86", "busybox": "busybox", "trace-cmd": "trace-cmd", "bcc": "python3-bcc"},
}
#: Where distributions put modules of their own Python, which a virtual environment does not see.
_SYSTEM_MODULES: Final = ("usr/lib/python3/dist-packages", "usr/lib/python3*/site-packages")
_TRACEFS: Final = "sys/kernel/tracing"
_DEBUGFS: Final = "sys/kernel/debug"


@dataclass(frozen=True)
class Capability:
    """One thing that was looked at.

    ``id``: its stable name; ``state``: is it there; ``found``: what was found, for people; ``command``: the one command
    that adds it, empty where it is there or no command can; ``why``: what it is good for, or why no command adds it;
    ``facts``: the same as plain data.
    """

    id: str
    state: State
    found: str
    command: str = ""
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class _Ability(NamedTuple):
    what: str
    needs: tuple[str, ...]


#: What a box may be able to do, and the checks that must say yes for it.
ABILITIES: Final[Mapping[str, _Ability]] = {
    "replay": _Ability("replay recordings", ("python", "packages")),
    "bytes": _Ability("predict compressed bytes exactly", ("compressors",)),
    "record": _Ability("record this kernel through tracefs",
                       ("root", "zswap", "swap", "lockdown", "tracefs", "debugfs", "probes")),
    "record-bcc": _Ability("record it with BPF programs",
                           ("root", "zswap", "swap", "lockdown", "tracefs", "debugfs", "probes", "bcc")),
    "lab": _Ability("boot kernels in QEMU", ("qemu", "busybox")),
    "lab-fast": _Ability("boot them at full speed", ("qemu", "busybox", "kvm")),
    "lab-kernels": _Ability("fetch distribution kernels", ("apt",)),
    "trace-cmd": _Ability("compare with trace-cmd", ("trace-cmd",)),
}


@dataclass(frozen=True)
class Host:
    """The box looked at; the defaults are this one, others are for tests.

    :param root: where proc, sys, dev and usr are
    :param euid: the effective user id
    :param which: finds a program
    :param output: runs a program that only prints, returns what it printed
    """

    root: Path = Path("/")
    euid: int = field(default_factory=os.geteuid)
    which: Callable[[str], str | None] = shutil.which
    output: Callable[[Sequence[str]], str] = field(default=lambda words: _output(words))

    def text(self, name: str) -> str:
        """Return a file's text, empty where it cannot be read."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            return ""

    def as_root(self, command: str) -> str:
        """Return a command as this user gives it to root."""
        return command if self.euid == 0 else f"sudo {command}"

    def install(self, what: str) -> str:
        """Return the command that installs a package, as its distribution calls it; Debian's where that is unknown."""
        manager = next((name for name in _PACKAGES if self.which(name)), "apt-get")
        return self.as_root(f"{'apt' if manager == 'apt-get' else manager} install {_PACKAGES[manager][what]}")

    def mounted(self, kind: str, at: str) -> bool:
        """Say whether a file system of a kind is mounted at a place."""
        places = (line.split() for line in self.text("proc/mounts").splitlines())
        return any(words[1:3] == [f"/{at}", kind] for words in places)


def _output(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=20,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr


def examine(host: Host | None = None, progress: Callable[[str, int, int], None] | None = None) -> list[Capability]:
    """Look at everything; a slow look calls ``progress`` with (what, done, total).

    :param host: what to look at, by default this box
    """
    host = host or Host()
    looks: tuple[Callable[[Host], Capability], ...] = (
        _python, _packages, _extras, _root, _zswap, _swap, _lockdown, _tracefs, _debugfs, _btf, _probes, _bcc,
        _trace_cmd, _qemu, _busybox, _kvm, _apt)
    checks = [look(host) for look in looks]
    checks.insert(3, _compressors(progress))
    return checks


def abilities(checks: Sequence[Capability]) -> dict[str, tuple[State, list[str]]]:
    """Return of each of :data:`ABILITIES` whether the box can do it, and the checks that stand in the way."""
    states = {check.id: check.state for check in checks}
    found: dict[str, tuple[State, list[str]]] = {}
    for name, (_, needs) in ABILITIES.items():
        missing = [need for need in needs if states[need] != "yes"]
        state: State = "yes" if not missing else "no" if any(states[need] == "no" for need in missing) else "unknown"
        found[name] = (state, missing)
    return found


def disk(seconds: float, cpus: int, path: Path) -> dict[str, Any]:
    """Return what a recording of ``seconds`` takes at the assumed rates, and what is free, bytes.

    :param cpus: how many CPUs swap all the time
    :param path: a directory of the file system that the recording would be on
    """
    events = seconds * cpus * EVENTS_PER_SECOND
    free = shutil.disk_usage(path).free
    needs = {mode: round(events * sum(each)) for mode, each in BYTES_PER_EVENT.items()}
    return {"seconds": seconds, "cpus": cpus, "events_per_second_and_cpu": EVENTS_PER_SECOND,
            "events": round(events), "free": free, "path": str(path),
            "bytes_per_event": {mode: {"capture": raw, "recording": made}
                                for mode, (raw, made) in BYTES_PER_EVENT.items()},
            "needs": needs, "enough": {mode: need <= free for mode, need in needs.items()}}


# What Python has


def _python(host: Host) -> Capability:
    version = platform.python_version()
    where = "a virtual environment" if sys.prefix != sys.base_prefix else "the system's own"
    facts = {"version": version, "executable": sys.executable, "prefix": sys.prefix}
    return Capability("python", "yes", f"{version}, {where}", facts=facts)


def _packages(host: Host) -> Capability:
    lines = [line for extra, line in requirements() if not extra]
    have, lacking = _missing(lines)
    if not lines:
        return Capability("packages", "unknown", "neither zreplay's metadata nor its pyproject.toml is here", "",
                          "run it installed or from a checkout")
    found = ", ".join(f"{name} {version}" for name, version in have.items())
    if lacking:
        return Capability("packages", "no", f"missing: {', '.join(lacking)}", _pip(lacking), "", {"have": have})
    return Capability("packages", "yes", found, facts={"have": have})


def _extras(host: Host) -> Capability:
    """Of each optional extra, whether all of it is installed; none is needed, so the box lacks nothing without it."""
    stated = requirements()
    names = dict.fromkeys(extra for extra, _ in stated if extra and extra != "dev")
    have: dict[str, dict[str, str]] = {}
    lacking: dict[str, list[str]] = {}
    for name in names:
        have[name], lacking[name] = _missing([line for extra, line in stated if extra == name])
    missing = list(dict.fromkeys(word for words in lacking.values() for word in words))
    found = ", ".join(f"{name}: {'yes' if not lacking[name] else 'no'}" for name in names) or "none known"
    return Capability("extras", "no" if missing else "yes", found, _pip(missing) if missing else "",
                      "'report' is for report and the statistics of regress, 'cluster' for replay --scheduler, 'bench' "
                      "for what dev bench compares with" if missing else "",
                      {"have": have, "missing": lacking})


def _compressors(progress: Callable[[str, int, int], None] | None,
                 names: Sequence[str] | None = None) -> Capability:
    """Try every compressor of every kernel line on pages whose compressed forms are known."""
    from model.crypto import KERNEL_LINES, UnsupportedCompressor, compressor_for
    from model.zswap import KERNEL_COMPRESSORS

    rows: list[dict[str, Any]] = []
    wanted = list(names or KERNEL_COMPRESSORS)
    for done, name in enumerate(wanted):
        if progress is not None:
            progress("trying compressors", done, len(wanted))
        by_ident: dict[str, dict[str, Any]] = {}
        for line in KERNEL_LINES:
            try:
                compressor = compressor_for(name, line)
            except UnsupportedCompressor as problem:
                row = {"name": name, "ident": "", "lines": [], "grade": "none", "problems": [str(problem)]}
                by_ident.setdefault(str(problem), row)["lines"].append(line)
                continue
            # What differs between lines in errors alone is the same library.
            key = compressor.ident.partition(" err=")[0]
            if key not in by_ident:
                by_ident[key] = {"name": name, "ident": key, "lines": [], "grade": compressor.grade,
                                 "problems": compressor.self_check()}
            by_ident[key]["lines"].append(line)
        rows += by_ident.values()
    # What no library anywhere computes is not missing on this box.
    able = [row for row in rows if row["grade"] == "exact"]
    bad = [row for row in rows if row["problems"] and row["name"] not in ("deflate-iaa", "deflate-iaa-dynamic")]
    exact = dict.fromkeys(row["name"] for row in able if not row["problems"])
    found = f"exact here: {', '.join(name for name in exact if name not in [row['name'] for row in bad]) or 'none'}"
    modelled = [row["name"] for row in rows if row["grade"] == "modelled"]
    if modelled:
        found += f"; modelled: {', '.join(modelled)}"
    if not bad:
        return Capability("compressors", "yes", found, facts={"compressors": rows})
    found += "; not exact: " + ", ".join(dict.fromkeys(row["name"] for row in bad))
    libraries = [line for name, (_, line) in ((_split(stated[1])[0], stated) for stated in requirements())
                 if name in ("zstandard", "backports.zstd") and _split(line)[2]]
    zstd = any(row["name"] == "zstd" for row in bad) and libraries
    return Capability("compressors", "no", found, _pip([_split(line)[1] for line in libraries]) if zstd else "",
                      bad[0]["problems"][0], {"compressors": rows})


# What the kernel offers


def _root(host: Host) -> Capability:
    if host.euid == 0:
        return Capability("root", "yes", "user id 0")
    # sudo looks programs up in a path of its own.
    program = host.which("zreplay")
    words = shlex.quote(os.path.abspath(program)) if program else f"{shlex.quote(sys.executable)} -m replay"
    return Capability("root", "no", f"user id {host.euid}", f"sudo {words} record -o run.zr", "only recording needs it")


def _zswap(host: Host) -> Capability:
    if not (host.root / "sys/module/zswap").is_dir():
        return Capability("zswap", "no", "this kernel has no zswap", "", "boot one with CONFIG_ZSWAP=y")
    names = ("enabled", "compressor", "max_pool_percent")
    facts = {name: host.text(f"sys/module/zswap/parameters/{name}").strip() for name in names}
    found = f"{facts['compressor'] or '?'}, pool limit {facts['max_pool_percent'] or '?'} %"
    if facts["enabled"] != "Y":
        return Capability("zswap", "no", f"switched off; {found}",
                          host.as_root("sh -c 'echo Y > /sys/module/zswap/parameters/enabled'"), "", facts)
    return Capability("zswap", "yes", found, facts=facts)


def _swap(host: Host) -> Capability:
    areas = host.text("proc/swaps").splitlines()[1:]
    if not (host.root / "proc/swaps").exists():
        return Capability("swap", "no", "this kernel cannot swap", "", "boot one with CONFIG_SWAP=y")
    if not areas:
        return Capability("swap", "no", "no swap area: zswap is never asked", host.as_root(
            "sh -c 'fallocate -l 4G /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile'"),
            "4 GiB in a file; some file systems want a partition")
    kib = sum(int(line.split()[2]) for line in areas if line.split()[2:3] and line.split()[2].isdecimal())
    return Capability("swap", "yes", f"{len(areas)} area{'s' if len(areas) > 1 else ''}, {kib / (1 << 20):.1f} GiB",
                      facts={"areas": len(areas), "kib": kib})


def _lockdown(host: Host) -> Capability:
    modes = host.text("sys/kernel/security/lockdown").strip()
    chosen = re.search(r"\[(\w+)\]", modes)
    if chosen is not None and chosen[1] == "confidentiality":
        return Capability("lockdown", "no", "confidentiality: the kernel refuses probes", "",
                          "boot without lockdown=confidentiality", {"mode": chosen[1]})
    if chosen is None:
        return Capability("lockdown", "yes", "the kernel reports none", facts={"mode": None})
    return Capability("lockdown", "yes", f"{chosen[1]}: probes are allowed", facts={"mode": chosen[1]})


def _file_system(host: Host, kind: str, at: str, content: str, without: str) -> Capability:
    """Look for a pseudo file system; ``content``: a name in it, empty for any; ``without``: options that bring it."""
    if os.path.exists(host.root / at / content) if content else _has_any(host.root / at):
        return Capability(kind, "yes", f"mounted at /{at}")
    if host.mounted(kind, at):
        if host.euid != 0:
            return Capability(kind, "unknown", f"mounted at /{at}; what is in it only root may see", "")
        return Capability(kind, "no", f"mounted at /{at}, without {content or 'anything'}", "",
                          f"boot a kernel with {without}")
    if not re.search(rf"\b{kind}$", host.text("proc/filesystems"), re.M):
        return Capability(kind, "no", f"this kernel has no {kind}", "", f"boot one with {without}")
    return Capability(kind, "no", f"not mounted at /{at}", host.as_root(f"mount -t {kind} nodev /{at}"))


def _has_any(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:
        return False


def _tracefs(host: Host) -> Capability:
    return _file_system(host, "tracefs", _TRACEFS, "dynamic_events",
                        "CONFIG_KPROBE_EVENTS=y and CONFIG_FPROBE_EVENTS=y")


def _debugfs(host: Host) -> Capability:
    # zswap's directory is there only once zswap was switched on.
    return _file_system(host, "debugfs", _DEBUGFS, "", "CONFIG_DEBUG_FS=y")


def _btf(host: Host) -> Capability:
    path = host.root / "sys/kernel/btf/vmlinux"
    try:
        size = path.stat().st_size
    except OSError:
        return Capability("btf", "no", "none: argument places of Linux 7.2 would be assumed", "",
                          "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's are")
    return Capability("btf", "yes", f"{size / (1 << 20):.1f} MiB in /sys/kernel/btf/vmlinux", facts={"bytes": size})


def _probes(host: Host) -> Capability:
    """Plan the recorder's probes without placing any; only root can read which symbols ftrace reaches."""
    try:
        kernel = Box(host.root).kernel()
    except CannotRecord as problem:
        return Capability("probes", "no", str(problem))
    planned: list[Planned] = plan(kernel)
    there = [row for row in planned if row.lines]
    missing = [row for row in planned if not row.lines]
    lost = sorted({check for row in missing for check in row.checks})
    found = f"{len(there)} of {len(planned)} events have their function in this kernel"
    why = ""
    if missing:
        why = f"no function for {', '.join(row.vocabulary for row in missing)}; " + (
            f"checks lost: {', '.join(lost)}" if lost else "no check is lost")
    tracing = host.root / _TRACEFS
    if not os.path.exists(tracing / "dynamic_events"):
        return Capability("probes", "unknown" if there else "no", f"{found}; only tracefs shows whether they can be "
                          "probed", "", why, {"events": as_json(planned, {}), "available": len(there)})
    # The kernel's README names what its dynamic_events take (trace.c, readme_msg).
    fprobe = "f[:[<group>/]" in host.text(f"{_TRACEFS}/README")
    kprobe = (tracing / "kprobe_events").exists()
    ways = [("f" if fprobe and any(line.startswith("f:") for line in row.lines) else "k" if kprobe else "")
            for row in there]
    facts = {"events": as_json(planned, {}), "available": sum(map(bool, ways)), "by_fprobe": ways.count("f"),
             "fprobe_events": fprobe, "kprobe_events": kprobe,
             "traceable_symbols": None if kernel.traceable is None else len(kernel.traceable)}
    refused = _refusal(tracing / "available_filter_functions")
    symbols = f"available_filter_functions cannot be read ({refused})" if refused else \
        f"ftrace reaches {len(kernel.traceable or ()):,} symbols"
    if not any(ways):
        return Capability("probes", "no", f"{found}, but none can be probed: {symbols}; dynamic_events take "
                          f"{'' if fprobe else 'no '}fprobes and {'' if kprobe else 'no '}kprobes", "",
                          "boot a kernel with CONFIG_FPROBE_EVENTS=y or CONFIG_KPROBE_EVENTS=y, without lockdown",
                          facts)
    return Capability("probes", "yes",
                      f"{sum(map(bool, ways))} of {len(planned)} events, {ways.count('f')} by fprobe and "
                      f"{ways.count('k')} by kprobe; {symbols}", "", why, facts)


def _refusal(path: Path) -> str:
    """Return why a file cannot be opened, empty where it can."""
    try:
        with path.open("rb"):
            return ""
    except OSError as problem:
        return problem.strerror or str(problem)


# Programs


def _bcc(host: Host) -> Capability:
    """Look for the BPF Compiler Collection, not the package of that name on PyPI, a library of lattices."""
    here = [Path(place) for place in _locations("bcc")]
    found = next((place for place in here if (place / "libbcc.py").is_file()), None)
    if found is not None:
        from traces.record.bccsession import load_bcc

        try:
            load_bcc()
        except CannotRecord as problem:
            return Capability("bcc", "no", str(problem), host.install("bcc"))
        return Capability("bcc", "yes", f"the BPF Compiler Collection in {found}", facts={"path": str(found)})
    system = [path for pattern in _SYSTEM_MODULES for path in sorted(host.root.glob(f"{pattern}/bcc/libbcc.py"))]
    if here:
        return Capability("bcc", "no", f"PyPI's package bcc (crystal lattices) is in {here[0]}: not the BPF Compiler "
                          "Collection", shlex.join([sys.executable, "-m", "pip", "uninstall", "bcc"]),
                          "" if system else f"then {host.install('bcc')}", {"wrong": str(here[0])})
    if system:
        config = Path(sys.prefix) / "pyvenv.cfg"
        command = shlex.join(["sed", "-i", "s/^include-system-site-packages.*/include-system-site-packages = true/",
                              str(config)]) if config.is_file() else ""
        return Capability("bcc", "no",
                          f"installed for the system's Python ({system[0].parent}), which this one does not "
                          "look at", command, "" if command else "run zreplay with the system's Python",
                          {"system": str(system[0].parent)})
    return Capability("bcc", "no", "not installed", host.install("bcc"),
                      "not from PyPI, where bcc is another package; --backend tracefs does without")


def _locations(name: str) -> list[str]:
    """Return the directories of a package that Python would import, without importing it."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        if spec is not None:
            return list(spec.submodule_search_locations or ([os.path.dirname(spec.origin)] if spec.origin else []))
    return []


def _program(host: Host, check: str, program: str, version: str, without: str = "") -> Capability:
    """Look for a program; ``version``: the option that has it print its version, empty where none is asked."""
    path = host.which(program)
    if path is None:
        return Capability(check, "no", "not installed", host.install(check), without)
    printed = host.output([path, version]) if version else ""
    number = re.search(r"version\s+v?(\d[\w.~-]*)", printed)
    return Capability(check, "yes", f"{number[1]}, {path}" if number else path,
                      facts={"path": path, "version": number[1] if number else ""})


def _trace_cmd(host: Host) -> Capability:
    return _program(host, "trace-cmd", "trace-cmd", "--version",
                    "its trace.dat is imported without it; 'bench' compares with it")


def _qemu(host: Host) -> Capability:
    return _program(host, "qemu", "qemu-system-x86_64", "--version")


def _busybox(host: Host) -> Capability:
    return _program(host, "busybox", "busybox", "", "the lab's guests run it")


def _kvm(host: Host) -> Capability:
    device = host.root / "dev/kvm"
    if os.access(device, os.R_OK | os.W_OK):
        return Capability("kvm", "unknown", "/dev/kvm may be opened; only a guest shows whether it runs guests")
    slow = "without it the lab emulates, which is slower"
    if device.exists():
        user = shlex.quote(os.environ["USER"]) if os.environ.get("USER") else "$(id -un)"
        return Capability("kvm", "no", "/dev/kvm is closed to this user", f"sudo usermod -aG kvm {user}",
                          f"then log in again; {slow}")
    flags = set(re.findall(r"\b(vmx|svm)\b", host.text("proc/cpuinfo")))
    if not flags:
        return Capability("kvm", "no", "this CPU, or the machine it is emulated by, offers no virtualisation", "", slow)
    return Capability("kvm", "no", "no /dev/kvm",
                      host.as_root(f"modprobe {'kvm_intel' if 'vmx' in flags else 'kvm_amd'}"), slow)


def _apt(host: Host) -> Capability:
    missing = [name for name in ("apt-get", "dpkg-deb", "gpgv") if host.which(name) is None]
    if not missing:
        return Capability("apt", "yes", "apt, dpkg-deb and gpgv: lab run --kernel 7.2 fetches Debian's kernels")
    if "apt-get" in missing:
        return Capability("apt", "no", "this is not a Debian system: lab run boots your own bzImage only", "",
                          "give --kernel PATH --modules DIR")
    return Capability("apt", "no", f"missing: {', '.join(missing)}", host.as_root("apt install gpgv dpkg"))


def summary(checks: Sequence[Capability]) -> Iterator[tuple[str, str]]:
    """Yield (check, command) of every lack that one command mends."""
    for check in checks:
        if check.state != "yes" and check.command:
            yield check.id, check.command


def system() -> dict[str, Any]:
    """Return what box this is: kernel, machine, CPUs, Python's platform."""
    uname = os.uname()
    return {"kernel": uname.release, "machine": uname.machine, "cpus": len(os.sched_getaffinity(0)),
            "platform": sysconfig.get_platform()}
