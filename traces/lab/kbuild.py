# SPDX-License-Identifier: GPL-2.0-or-later
"""A small kernel for the lab, built from a source tree: its requirements, its configuration, make, the result.

Building runs what the tree's Makefiles say, and with them those of every patch that was applied.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces.lab.errors import LabError
from traces.lab.series import Patch

__all__ = ["FACTS", "FRAGMENT", "Build", "check_needs", "compiler_complaint", "options_of", "read_facts"]

#: What the lab asks of a configuration; all else is off.
FRAGMENT: Final = Path(__file__).with_name("lab.config")
#: The file next to a bzImage that says what it was built from.
FACTS: Final = "build.json"
#: The lab's own modules, each in a directory named like it.
_MODULES: Final = tuple(Path(__file__).parent / name for name in ("fake_iaa", "iaa/movdir64b_emu"))
_OPTION: Final = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(\S.*|)")
_UNSET: Final = re.compile(r"# (CONFIG_[A-Za-z0-9_]+) is not set")
#: Program -> Debian's package with it.
_PROGRAMS: Final = {"gcc": "build-essential", "make": "build-essential", "ld": "build-essential", "flex": "flex",
                    "bison": "bison", "bc": "bc", "pahole": "dwarves", "git": "git", "gzip": "gzip", "awk": "mawk",
                    "perl": "perl"}
_HEADERS: Final = {"libelf.h": "libelf-dev", "zlib.h": "zlib1g-dev"}
#: A line that make prints of an object it makes.
_STEP: Final = re.compile(r"^  ([A-Z][A-Z0-9_+ -]{0,10}?)(?: \[M\])?\s+(\S+)$")

Say = Callable[[str], None]


def check_needs() -> None:
    """See that this machine can build a kernel.

    :raises LabError: naming what is missing, with the one command that installs it
    """
    missing = {name: package for name, package in _PROGRAMS.items() if shutil.which(name) is None}
    if "gcc" not in missing:
        for name, package in _HEADERS.items():
            done = subprocess.run(["gcc", "-fsyntax-only", "-include", name, "-x", "c", os.devnull], check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            if done.returncode:
                missing[name] = package
    else:
        missing |= _HEADERS
    if missing:
        raise LabError(f"building a kernel needs {', '.join(missing)}, not found here; apt install "
                       f"{' '.join(sorted(set(missing.values())))}")


def options_of(texts: Iterable[str]) -> dict[str, str]:
    """Return option -> value of configuration fragments, where later ones override; ``n`` for an option that is off.

    :raises LabError: with a line that does not belong into a configuration
    """
    options: dict[str, str] = {}
    for text in texts:
        for line in text.splitlines():
            line = line.strip()
            unset, option = _UNSET.fullmatch(line), _OPTION.fullmatch(line)
            if unset is not None:
                options[unset[1]] = "n"
            elif option is not None:
                options[option[1]] = option[2].strip()
            elif line and not line.startswith("#"):
                raise LabError(f"'{line[:80]}' is not a line of a kernel configuration; write CONFIG_NAME=VALUE")
    return options


def compiler_complaint(lines: Iterable[str]) -> str:
    """Return the part of make's output that says why it ended, in one line."""
    lines = list(lines)
    errors = [line.strip() for line in lines
              if re.search(r": (?:fatal )?error:? |undefined reference|multiple definition|^ERROR: |\*\*\* ", line)
              and not re.match(r"make(\[\d+\])?: \*\*\* (.*Error \d|Deleting |Waiting )", line.strip())]
    if not errors:
        errors = [line.strip() for line in lines if line.strip()][-3:]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    first = re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]+", " ", errors[0])[:300] if errors else "make gave no reason"
    return first + more


@dataclass
class Build:
    """A build in a directory: ``tree`` is the source, ``obj`` where make works, the bzImage and the rest above them.

    ``jobs`` is how many compilers run at a time; ``say`` is called with a sentence on what is being done.
    """

    place: Path
    tree: Path
    jobs: int
    say: Say

    @property
    def obj(self) -> Path:
        """Where make works."""
        return self.place / "obj"

    @property
    def log(self) -> Path:
        """Make's output of the last build."""
        return self.place / "build.log"

    def configure(self, wanted: Mapping[str, str], named: Iterable[str]) -> None:
        """Make the configuration: ``wanted``, what that selects, and nothing else.

        :param named: the options that the user asked for: one that did not take is reported
        :raises LabError: when the tree's Kconfig does not give what was asked for
        """
        self.obj.mkdir(exist_ok=True)
        fragment = self.obj / "zreplay.config"
        fragment.write_text("".join(f"{name}={value}\n" if value != "n" else f"# {name} is not set\n"
                                    for name, value in wanted.items()))
        self.say("configuring")
        self.log.write_bytes(b"")
        self._make(f"KCONFIG_ALLCONFIG={fragment.resolve()}", "allnoconfig", what="the configuration cannot be made")
        config = self.obj / ".config"
        have = options_of([config.read_text(errors="replace")])
        for name in (*named, *wanted):
            if wanted[name] != have.get(name, "n"):
                raise LabError(f"{name}={wanted[name]} did not take: the configuration has {have.get(name, 'n')}; "
                               f"see what {name} depends on in this source's Kconfig, and give it with --set")
        shutil.copyfile(config, self.place / "config")

    def make(self) -> None:
        """Build the kernel, its modules and the lab's own.

        :raises LabError: with what the compiler had to say
        """
        for name in ("bzImage", FACTS):
            # A build that fails leaves no kernel that looks like its own.
            (self.place / name).unlink(missing_ok=True)
        shutil.rmtree(self.place / "modules", ignore_errors=True)
        self._make(f"-j{self.jobs}", "bzImage", "modules", what="the kernel does not build")
        own = [self._module(source) for source in _MODULES]
        modules = self.place / "modules"
        modules.mkdir()
        for path in sorted(self.obj.rglob("*.ko")):
            target = modules / "kernel" / path.relative_to(self.obj)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        for path in own:
            shutil.copyfile(path, modules / path.name)
        shutil.copyfile(self.obj / "arch/x86/boot/bzImage", self.place / "bzImage.new")

    def _module(self, source: Path) -> Path:
        """Build one of the lab's modules; returns its file.

        :raises LabError: with what the compiler had to say
        """
        place = self.place / source.name
        place.mkdir(exist_ok=True)
        for path in sorted(source.glob("[!.]*")):
            if not (place / path.name).is_file() or (place / path.name).read_bytes() != path.read_bytes():
                shutil.copyfile(path, place / path.name)
        self._make(f"-j{self.jobs}", f"M={place.resolve()}", "modules",
                   what=f"{source.name} does not build in this tree")
        return place / f"{source.name}.ko"

    def finish(self, facts: Mapping[str, Any], patches: Iterable[Patch]) -> dict[str, Any]:
        """Write what the kernel was built from, and give it its name; returns the facts.

        :param facts: of the source
        """
        compiler = subprocess.run(["gcc", "--version"], text=True, capture_output=True, check=False).stdout
        config = (self.place / "config").read_bytes()
        release = (self.obj / "include/config/kernel.release").read_text().strip()
        rows = [{"number": patch.number, "subject": patch.subject, "message_id": patch.message_id,
                 "sha256": patch.sha256, **({"carries": list(patch.carries)} if patch.carries else {})}
                for patch in patches]
        built = {"release": release, "source": dict(facts), "patches": rows,
                 "config_sha256": hashlib.sha256(config).hexdigest(),
                 "bzimage_sha256": hashlib.sha256((self.place / "bzImage.new").read_bytes()).hexdigest(),
                 "compiler": compiler.splitlines()[0] if compiler else ""}
        (self.place / FACTS).write_text(json.dumps(built, indent=1) + "\n")
        (self.place / "bzImage.new").replace(self.place / "bzImage")
        return built

    def _make(self, *words: str, what: str) -> None:
        """Run make in the tree, its output into the log.

        :raises LabError: when it fails
        """
        # No builder's name or host: the kernel's banner goes into recordings.
        environment = {**os.environ, "LC_ALL": "C", "KBUILD_BUILD_USER": "zreplay", "KBUILD_BUILD_HOST": "lab"}
        command = ["nice", "make", "-C", str(self.tree.resolve()), f"O={self.obj.resolve()}", "ARCH=x86_64", *words]
        # Of a parallel build the reason may stand far above the end.
        lines: collections.deque[str] = collections.deque(maxlen=5000)
        count = 0
        with self.log.open("a", buffering=1) as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                       stderr=subprocess.STDOUT, errors="replace", env=environment,
                                       start_new_session=True)
            assert process.stdout is not None
            try:
                with process.stdout:
                    for line in process.stdout:
                        log.write(line)
                        lines.append(line)
                        step = _STEP.match(line)
                        if step is not None:
                            count += 1
                            self.say(f"building: {count} done, {step[1].strip()} {step[2][-60:]}")
                process.wait()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
        if process.returncode:
            raise LabError(f"{what}: {compiler_complaint(lines)}; see all of it in {self.log}")


def read_facts(image: Path) -> dict[str, Any] | None:
    """Return what a bzImage was built from, None where no file next to it says so, or the bzImage has changed since."""
    try:
        facts = json.loads(image.with_name(FACTS).read_text())
        if facts["bzimage_sha256"] != hashlib.sha256(image.read_bytes()).hexdigest():
            return None
        return dict(facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
