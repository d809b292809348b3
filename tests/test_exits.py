# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out: whatever happens to a command, one sentence and an exit status that is not a verdict."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from replay.cli import main
from traces.record.exits import FAULT, TRACEBACK, leave, printable

COMMAND = [sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())"]
ALONE = [sys.executable, "traces/record"]
SENTENCE = re.compile(r"zreplay: [^\n]+\.\n")
FOREIGN = os.fsdecode(b"a\xffb")


def ran(*words: str, command: list[str] = COMMAND, **keys: Any) -> tuple[int, str, str]:
    """Run the command; returns its status and both outputs."""
    keys = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keys}
    done = subprocess.run([*command, *words], cwd=ROOT, text=True, check=False, timeout=120, **keys)
    assert "Traceback" not in (done.stderr or "")
    return done.returncode, done.stdout or "", done.stderr or ""


@pytest.fixture
def sample(samples: dict[str, Path], tmp_path: Path) -> str:
    """Return a copy of a sample, whose cache is its own."""
    copy = tmp_path / "sample.zr"
    shutil.copytree(samples["7.2-lz4-edge"], copy, ignore=shutil.ignore_patterns("cache"))
    return str(copy)


# ---- streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["replay", "--help"], ["--version"], ["doctor"], ["info"],
                                   ["show", "REC"], ["replay", "REC", "--check", "store.length"],
                                   ["replay", "REC", "REC", "-j", "2", "--check", "store.length"]], ids=" ".join)
def test_output_that_is_full_is_no_verdict(words: list[str], sample: str) -> None:
    words = [sample if word == "REC" else word for word in words]
    with open("/dev/full", "w") as full:
        status, _, said = ran(*words, stdout=full)
    assert status == 2
    assert said.endswith("zreplay: standard output: No space left on device, so what was printed is not whole; send it "
                         "elsewhere.\n")
    with open("/dev/full", "w") as full:
        assert ran(*words, stdout=full, stderr=full)[0] == 2


def closing(*numbers: int) -> dict[str, Any]:
    return {"preexec_fn": lambda: [os.close(number) for number in numbers]}


def test_closed_streams(sample: str) -> None:
    words = ("replay", sample, "--check", "store.length")
    status, _, said = ran(*words, **closing(1))
    assert (status, said) == (2, "zreplay: standard output is closed, so the result cannot be printed; send it to a file or to "
                                 "/dev/null.\n")
    assert ran(*words, **closing(1, 2))[0] == ran(*words, **closing(0, 1, 2))[0] == 2
    status, printed, _ = ran(*words, **closing(2))
    assert (status, "PASS" in printed) == (0, True), "who wants no errors gets a verdict"
    assert ran("info", "/none", **closing(2))[0] == 2
    assert ran("regress", "--b4", "--config", "/none", **closing(0))[0] == 2
    with open("/dev/full", "w") as full:
        assert ran(*words, stderr=full)[0] == 0
        assert ran("info", "/none", stderr=full)[0] == 2
        assert ran("nosuchverb", stderr=full)[0] == 2


def test_a_reader_that_went_away(sample: str) -> None:
    for words in (("show", sample), ("--help",)):
        end, other = os.pipe()
        os.close(end)
        with open(other, "w") as gone:
            assert ran(*words, stdout=gone) == (141, "", ""), words


def test_the_recorder_alone_has_the_same_manners(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert ran("--help", command=ALONE, stdout=full)[0] == 2
    assert ran("--help", command=ALONE, **closing(1))[0] == 2
    status, _, said = ran("-o", str(tmp_path / FOREIGN), command=ALONE)
    assert (status, said.count("\n")) == (2, 1)
    assert r"a\xffb: the name is not UTF-8" in said


# ---- disks, names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["cut", "REC", "--from", "100", "--to", "1500", "-o", "OUT.zr"],
                                   ["scrub", "REC", "-o", "OUT.zr"],
                                   ["export", "REC", "-o", "OUT.pftrace"], ["export", "REC", "-o", "OUT.json"],
                                   ["report", "REC", "-o", "OUT.html"], ["import", "tests/corpus/dat-good", "-o", "OUT.zr"],
                                   ["replay", "REC", "--table", "OUT.json"], ["replay", "REC", "--junit", "OUT.xml"]],
                         ids=" ".join)
def test_a_full_disk_is_said_and_leaves_nothing(words: list[str], sample: str, tmp_path: Path) -> None:
    place = tmp_path / "full"
    place.mkdir()
    words = [word.replace("REC", sample).replace("OUT", str(place / "out")) for word in words]

    def limited() -> None:
        # Like a full disk, also for root: writes beyond the limit are refused.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    status, _, said = ran(*words, preexec_fn=limited)
    assert status == 2
    assert re.search(r"zreplay: \S*full/\S*out\S*: (cannot be written \()?File too large\)?; [^\n]+\.\n$", said)
    assert list(place.iterdir()) == []
    assert os.listdir(tmp_path / "sample.zr" / "cache" if (tmp_path / "sample.zr" / "cache").exists() else place) == []


@pytest.mark.parametrize("verb", ["info", "show", "replay", "report", "dev", "regress", "import", "cut", "lab", "vmcore"])
def test_names_that_are_no_utf_8(verb: str, sample: str, tmp_path: Path) -> None:
    os.rename(sample, tmp_path / FOREIGN)
    assert ran(verb, str(tmp_path / FOREIGN)) == (2, "", f"zreplay: {tmp_path}/a\\xffb: the name is not UTF-8, and recordings "
                                                  "keep names as UTF-8; rename it, or name it through a link.\n")


def test_a_file_of_no_utf_8_name_inside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copyfile(ROOT / "tests/corpus/dat-good", tmp_path / "in" / FOREIGN)
    status, _, said = ran("import", str(tmp_path / "in"), "-o", str(tmp_path / "out.zr"))
    assert status in (0, 2)
    assert "�" not in said
    assert status == 0 or SENTENCE.fullmatch(said)


def test_printable() -> None:
    assert printable("a\x1b[31m\n\udcff\x9b Zürich") == r"a\x1b[31m\n\xff\x9b Zürich"


# ---- faults -------------------------------------------------------------------------------------------------


FAULTY = "import replay.cli.info as m\ndef run(_): raise KeyError('x\\x1b')\nm.run = run\n"


def faulty(*words: str, patch: str = FAULTY, **environment: str) -> tuple[int, str]:
    program = f"import sys\n{patch}\nfrom replay.cli import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, text=True, check=False, capture_output=True,
                          env={**os.environ, **environment})
    return done.returncode, done.stderr


def test_a_fault_of_zreplay_is_no_verdict() -> None:
    status, said = faulty("info")
    assert status == FAULT == 70
    assert SENTENCE.fullmatch(said)
    assert "a fault of zreplay itself (KeyError: 'x\\x1b' at <string>:3), and not a verdict; report it" in said
    assert f"with what it prints with {TRACEBACK}=1 in its environment" in said
    status, said = faulty("info", **{TRACEBACK: "1"})
    assert status == 70
    assert said.startswith("Traceback (most recent call last):\n")
    assert "\nzreplay: this is a fault of zreplay itself" in said


def test_a_fault_in_one_of_several_replays(sample: str) -> None:
    patch = "import replay.many.jobs as m\ndef replay(*_, **__): raise KeyError('x')\nm.replay = replay"
    status, said = faulty("replay", sample, sample, patch=patch)
    assert (status, said.count("raised KeyError ('x'); this is a fault of zreplay itself: report it")) == (70, 2)
    assert "Traceback" not in said
    assert "Traceback" in faulty("replay", sample, sample, patch=patch, **{TRACEBACK: "1"})[1]


@pytest.mark.parametrize(("raised", "status", "said"), [
    (RecursionError("deep"), 70, "a fault of zreplay itself (RecursionError: deep"),
    (MemoryError(), 2, "out of memory; "),
    (PermissionError(13, "x", "/a"), 2, "/a: Permission denied; choose a place that you may use"),
    (OSError(24, "x"), 2, "here: Too many open files; allow more open files (ulimit -n)"),
    (OSError("odd\nthing"), 2, "here: odd thing; "),
    (UnicodeEncodeError("utf-8", FOREIGN, 1, 2, "x"), 2, r"a\xffb: the name is not UTF-8"),
    (UnicodeEncodeError("ascii", "ü", 0, 1, "x"), 70, "a fault of zreplay itself (UnicodeEncodeError"),
])
def test_what_is_raised_is_a_sentence(raised: Exception, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise raised

    assert leave(run, (), str, command=False, place=lambda: "here") == status
    found = capsys.readouterr().err
    assert SENTENCE.fullmatch(found)
    assert found.startswith(f"zreplay: {'this is ' * (status == 70)}{said}")


def test_words_for_a_command_may_be_anything() -> None:
    assert main(["record", "--clean", "--instance", FOREIGN]) == 2
    # After "--" they belong to the command.
    status, _, said = ran("record", "-o", "/none/x", "--", FOREIGN)
    assert (status, "UTF-8" in said) == (2, False)


# ---- Ctrl-C -------------------------------------------------------------------------------------------------


def interrupted(patch: str, *words: str) -> tuple[int, str]:
    program = ("import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
               f"def stop(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n{patch}\n"
               "from replay.cli import main\nsys.exit(main())")
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=120)
    return done.returncode, done.stderr


#: Ctrl-C as a module begins to be imported; "swallowed": by one that takes it for a missing package.
AT = """class At:
    def find_spec(self, name, *_):
        if name == {0!r}:
            sys.meta_path.remove(self)
            {1}
sys.meta_path.insert(0, At())
"""


@pytest.mark.parametrize("module", ["replay.cli.main", "argparse", "replay.cli.help", "traces.errors", "replay.cli.regress",
                                    "numpy", "pyarrow.parquet", "scipy", "numba"])
@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_from_the_first_import_on(module: str, swallowed: bool, sample: str) -> None:
    if swallowed and module in ("replay.cli.main", "argparse", "replay.cli.help", "traces.errors"):
        pytest.skip("nothing of others is imported by then")
    stop = "stop()" if not swallowed else "\n            ".join(
        ["try: stop(); [0 for _ in range(1000)]", "except BaseException: pass"])
    status, said = interrupted(AT.format(module, stop), "regress", sample, "--revision", "mainline-7.2", "--revision", "v14")
    assert status == 130
    assert re.fullmatch(r"zreplay: interrupted; nothing (was begun|half-written was left behind)\.\n", said)


def test_ctrl_c_in_a_destructor_is_no_silence(sample: str) -> None:
    # Python only prints what is raised there.
    patch = ("class Dies:\n    def __del__(self): stop()\nimport replay.cli.regress as m\n"
             "def two(*_, **__):\n    import time\n    d = Dies()\n    del d\n    time.sleep(60)\n    return 0\nm.two_revisions = two")
    status, said = interrupted(patch, "regress", sample, "--revision", "a")
    assert (status, said) == (130, "zreplay: interrupted; nothing half-written was left behind.\n")


def test_a_handler_of_others_is_left_alone() -> None:
    def other(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGINT, other)
    try:
        assert leave(lambda: int(signal.getsignal(signal.SIGINT) is not other), (), str, command=False) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert leave(lambda: 3, (), str, command=False) == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_no_sentence_has_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever raised it: the recorder's sentences name files and tasks of other processes too."""
    def refuse() -> int:
        raise ValueError("task \x1b[31mred\x1b[0m\nPASS is gone")

    assert leave(refuse, (ValueError,), str, command=False) == 2
    assert capsys.readouterr().err == "zreplay: task \\x1b[31mred\\x1b[0m\\nPASS is gone.\n"
