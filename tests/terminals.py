# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/terminal.md anew: ``python -m tests.terminals``.

What has to be root's, on a kernel that may be probed, is shown by a guest of the lab: a Debian kernel, this machine's
Python and libraries, and the checkout, in places of their own.  Everything is run on terminals of 80 columns.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from replay.cli.labcommon import Shelf
from replay.tools.doctor import requirements
from traces.lab.cpio import CpioWriter
from traces.lab.initramfs import _linked
from traces.lab.run import GuestJob, run_task
from traces.lab.tools import ROOT as TOOLS
from traces.lab.tools import Tools

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "terminal.md"
COLUMNS: Final = 80
#: Where the guest has the checkout, with its virtual environment.
_HOME: Final = "home/me/zreplay"
_ENVIRONMENT: Final = {"TERM": "linux", "NO_COLOR": "1", "LANG": "C.UTF-8"}
#: What Numba compiles is compiled here, for the CPU that QEMU plays, and taken along.
_COMPILE_FOR: Final = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_GUEST: Final = (("doctor",), ("record", "-o", "run.zr", "--", "zreplay", "workload", "base", "--pages", "256"))
_SPINNER: Final = "".join(map(chr, range(0x2800, 0x2900))) + " "
_HERE: Final = (("replay", "traces/samples/7.3-lz4-limits"),
                ("regress", "traces/samples/7.2-lz4-edge", "--revision", "mainline-7.2", "--revision", "v14"))


_HEAD: Final = f"""# On a terminal of {COLUMNS} columns

What four commands show on a terminal of {COLUMNS} columns, without colours (`NO_COLOR=1`). `make terminal` writes this page anew;
the tests run the last two again and compare.

The first two ran as root in a guest of the lab: a Debian kernel in QEMU, with tracefs, debugfs, BTF, swap and zswap on. The guest has
no distribution, only Python, busybox and zreplay in a virtual environment.
"""
_SAID: Final = {
    "doctor": "[What this box can do](verbs/doctor.md), and what one command each would add:",
    "record": "[A recording](verbs/record.md) of the [workload](verbs/workload.md), whose lines stand between the recorder's; "
              "it is\nimported at once:",
    "replay": "[A recording checked against its revision](verbs/replay.md):",
    "regress": "[Two revisions on one recording](verbs/regress.md); status 1, as they differ:"}


class Screen:
    """A terminal as far as these commands move its cursor.

    ``gone`` is what stood in a line when it was cleared, ``status`` the exit status of what wrote there.
    """

    _PIECES: Final = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[()][A-Z0-9]|([\r\n\b])|([^\x1b\r\n\b]+)|(\x1b.?)")

    def __init__(self, text: str = "", status: int = 0, columns: int = COLUMNS) -> None:
        self.columns = columns
        self.status = status
        self.lines: list[str] = [""]
        self.gone: list[str] = []
        self._row = self._column = 0
        self.feed(text)

    def feed(self, text: str) -> None:
        """Take what a program writes; ValueError for what is not known here."""
        for match in self._PIECES.finditer(text):
            numbers, order, control, words, unknown = match.groups()
            if unknown:
                raise ValueError(f"the terminal does not know {unknown!r}")
            if order:
                self._obey(order, numbers)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._down()
            elif control == "\b":
                self._column = max(self._column - 1, 0)
            for letter in words or "":
                if self._column == self.columns:
                    self._column = 0
                    self._down()
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[:self._column] + letter + line[self._column + 1:]
                self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _obey(self, order: str, numbers: str) -> None:
        count = int(numbers) if numbers.isdecimal() else 1
        if order == "A":
            self._row = max(self._row - count, 0)
        elif order == "K":
            if self.lines[self._row].strip():
                self.gone.append(self.lines[self._row].rstrip())
            self.lines[self._row] = "" if numbers == "2" else self.lines[self._row][:self._column]
        elif order not in "hlm":
            raise ValueError(f"the terminal does not know CSI {numbers}{order}")

    def text(self) -> str:
        """Return what is seen in the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    def progress(self) -> list[str]:
        """Return the lines that were there for a while, each as it was last."""
        last: dict[str, str] = {}
        for line in self.gone:
            # A spinner turns before the words, a bar or a count changes after them.
            last[re.split(r" \.\.\.|:|\s*\u2501|\s{2,}", line.lstrip(_SPINNER))[0].strip()] = line
        return list(last.values())


def _here(words: tuple[str, ...]) -> Screen:
    """Run a command of the checkout on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([sys.executable, "-m", "replay", *words], cwd=ROOT, stdin=slave, stdout=slave,
                               stderr=slave, env={**environment, **_ENVIRONMENT})
    os.close(slave)
    data = b""
    try:
        while piece := os.read(master, 65536):
            data += piece
    except OSError:  # no process has the terminal open any more
        pass
    os.close(master)
    return Screen(data.decode(), process.wait())


# The guest


def _packages() -> Iterator[Path]:
    """Yield the files of the packages that zreplay asks for, and of those that they ask for."""
    todo = [re.match(r"[\w.-]+", line)[0] for extra, line in requirements() if not extra]  # type: ignore[index]
    seen: set[str] = set()
    while todo:
        try:
            found = importlib.metadata.distribution(todo.pop())
        except importlib.metadata.PackageNotFoundError:  # for another Python or system
            continue
        if found.name in seen:
            continue
        seen.add(found.name)
        for file in found.files or ():
            if not {"tests", "__pycache__", "..", "include"} & set(file.parts):
                yield Path(str(found.locate_file(file)))
        todo += [re.match(r"[\w.-]+", line)[0] for line in found.requires or ()  # type: ignore[index]
                 if "extra ==" not in line]


def _stage(tree: Path) -> None:
    """Make the guest's directory tree: Python, libraries, the checkout."""
    base = Path(sys.base_prefix)
    real = Path(os.path.realpath(sys.executable))
    library = tree / "usr" / "lib" / _PYTHON
    shutil.copytree(base / "lib" / _PYTHON, library, symlinks=True, ignore=shutil.ignore_patterns(
        "__pycache__", "test", "tests", "site-packages", "idlelib", "config-*", "lib2to3", "ensurepip", "turtledemo"))
    (tree / "usr" / "bin").mkdir()
    shutil.copy(real, tree / "usr" / "bin" / _PYTHON)
    (tree / "usr" / "bin" / "python3").symlink_to(_PYTHON)
    shutil.copy(shutil.which("busybox") or "", tree / "usr" / "bin" / "busybox")
    for applet in ("sh", "mkswap", "swapon", "swapoff", "mount", "cat", "uname", "sleep"):
        (tree / "usr" / "bin" / applet).symlink_to("busybox")
    home = tree / _HOME
    for name in subprocess.run(["git", "ls-files", "traces", "model", "replay", "pyproject.toml"], cwd=ROOT, text=True,
                               capture_output=True, check=True).stdout.split():
        if not name.startswith("traces/samples/"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / name)
    site = home / ".venv" / "lib" / _PYTHON / "site-packages"
    packages = Path(str(importlib.metadata.distribution("numpy").locate_file("")))
    for path in _packages():
        target = site / path.relative_to(packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (site / "zreplay.pth").write_text(f"/{_HOME}\n")
    programs = home / ".venv" / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(f"/usr/bin/{_PYTHON}")
    (home / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (programs / "zreplay").write_text(f"#!/{_HOME}/.venv/bin/python\nimport sys\nfrom replay.cli import main\n"
                                      "sys.exit(main())\n")
    (programs / "zreplay").chmod(0o755)
    # Archives keep no times: what is compiled must not ask for them.
    for path in tree.rglob("*.py"):
        os.utime(path, (0, 0))
    subprocess.run(["nice", sys.executable, "-m", "compileall", "-q", "-j", "1", "--invalidation-mode",
                    "unchecked-hash", str(library), str(home)], check=False)
    warm = {**os.environ, **_COMPILE_FOR, "PYTHONPATH": str(home)}
    subprocess.run(["nice", sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())", "doctor"],
                   cwd=home, env=warm, check=True, stdout=subprocess.DEVNULL)
    for path in (tree / "usr" / "lib", tree / "usr" / "bin", site):
        for linked in _linked(*(str(file) for file in path.rglob("*") if ".so" in file.name or file.name == _PYTHON)):
            # What has its libraries next to it finds them there, too.
            if not Path(linked).is_relative_to(tree):
                place = tree / ("usr/lib" if linked.startswith(str(base)) else "")
                target = place / (Path(linked).name if linked.startswith(str(base)) else linked.lstrip("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(linked, target)


def _archive(tree: Path, target: Path) -> Tools:
    archive = CpioWriter()
    for name in ("proc", "sys", "dev", "out", "tmp", "boot", "zreplay", "content", "etc", "root", "home/me/box"):
        archive.directory(f"{TOOLS}/{name}")
    for path in sorted(tree.rglob("*")):
        name = f"{TOOLS}/{path.relative_to(tree)}"
        if path.is_symlink():
            archive.symlink(name, os.readlink(path))
        elif path.is_file():
            archive.file(name, path.read_bytes(), path.stat().st_mode & 0o777)
    target.write_bytes(archive.finish())
    return Tools(target, {})


def _guest(kernel: str) -> list[Screen]:
    """Run the commands that want root in a guest."""
    def say(text: str) -> None:
        print(text, file=sys.stderr)

    environment = {**_ENVIRONMENT, **_COMPILE_FOR, "PATH": f"/{_HOME}/.venv/bin:/usr/bin:/bin:/sbin", "HOME": "/home/me",
                   "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        say("gathering Python, libraries and the checkout")
        _stage(tree)
        tools = _archive(tree, Path(scratch) / "tools.cpio")
        shutil.rmtree(tree)
        job = GuestJob(Shelf(None, say).get(kernel, None), "zstd", (), memory=6144, timeout=3000, tools=tools)
        options: dict[str, Any] = {
            "before": [["mount", "-t", "devpts", "devpts", "/dev/pts"], ["mount", "-t", "tmpfs", "box", "/home/me/box"]],
            "commands": [["zreplay", *words] for words in _GUEST], "columns": COLUMNS, "directory": "/home/me/box",
            "environment": environment}
        with run_task(job, "terminals", options, Path(scratch) / "out", say) as ran:
            return [Screen((ran.capture / str(number)).read_bytes().decode(), status)
                    for number, status in enumerate(ran.result["statuses"])]


def _block(words: tuple[str, ...], screen: Screen, mark: str = "") -> str:
    # A user may be root or not; the guest's is.
    prompt = "$" if mark else "#"
    command = " \\\n".join(textwrap.wrap(f"{prompt} zreplay {shlex.join(words)}", COLUMNS - 2, subsequent_indent="    ",
                                        break_on_hyphens=False))
    status = f"\n$ echo $?\n{screen.status}" if mark and screen.status else ""
    text = f"```{mark}\n{command}\n{screen.text()}{status}\n```\n"
    if screen.progress():
        lines = "\n".join(screen.progress())
        text += f"\nWhile it works, its last line shows the progress and disappears in the end. It was last:\n\n```\n{lines}\n```\n"
    return text


def main() -> None:
    """Write the page anew."""
    parser = argparse.ArgumentParser(description="Write docs/terminal.md anew.")
    parser.add_argument("--kernel", default="7.2", help="what the guest boots (default: 7.2)")
    arguments = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    shown = dict(zip(_GUEST, _guest(arguments.kernel), strict=True))
    parts = [_HEAD]
    for words, screen in shown.items():
        parts += [f"## {words[0]}", _SAID[words[0]], _block(words, screen)]
    for words in _HERE:
        parts += [f"## {words[0]}", _SAID[words[0]], _block(words, _here(words), "console")]
    PAGE.write_text("\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts))


if __name__ == "__main__":
    main()
