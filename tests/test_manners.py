# SPDX-License-Identifier: GPL-2.0-or-later
"""How the command behaves to people: screens that fit, terminals that are narrow or none, Ctrl-C, a quick start."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from replay.cli import main
from replay.cli.completion import SHELLS, script
from replay.cli.help import opening
from replay.cli.main import parser
from replay.cli.manpages import main as write_pages
from replay.cli.manpages import pages
from replay.cli.terminal import fitting, painted, table
from replay.cli.verbs import EXAMPLES, GROUPS, VERBS

COMMAND = [sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())"]


def parsers(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all its verbs and their parts."""
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


ALL = [pytest.param(each, id=each.prog) for each in parsers(parser())]


# ---- the first screen, and help -----------------------------------------------------------------------------


def test_the_command_alone_prints_a_screen_that_leads_on(capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 2, "0 would be PASS"
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) < 24, "with the prompt below it"
    assert max(map(len, lines)) <= 80
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", said.err)
    commands = re.findall(r"^  (zreplay .*?)(?:  |$)", said.err, re.M)
    assert len(commands) >= 4
    for command in commands:
        words = [word for word in shlex.split(command)[1:] if word not in ("VERB", "--help")]
        if words:
            parser().parse_args(words)
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, opening().splitlines())) <= 40


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("each", ALL)
def test_help_fits(each: argparse.ArgumentParser, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in each.format_help().splitlines():
        # What has no place to be broken at may be longer: a list of choices, a path.
        longest = max(map(len, line.split()), default=0)
        assert len(line) <= columns or longest > columns - 24, line
        assert len(line) <= 80


@pytest.mark.parametrize("each", ALL)
def test_help_ends_with_an_example_or_a_pointer(each: argparse.ArgumentParser) -> None:
    text = each.format_help()
    assert re.search(r"zreplay \S", text.split("options:")[-1]), "nothing leads on from here"
    assert text.startswith("usage: ")
    assert len(text.split("\n\n")[0].splitlines()) <= 3, "a usage that is longer is not read"


def test_verbs_are_what_their_modules_say() -> None:
    (verbs,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    said = {choice.dest: choice.help for choice in verbs._choices_actions}
    assert said == {name: verb.help for name, verb in VERBS.items()}
    assert list(VERBS) == [name for group in GROUPS.values() for name in group]
    assert set(EXAMPLES) <= {each.prog for each in parsers(parser())}


@pytest.mark.parametrize("command", sorted({command for commands in EXAMPLES.values() for command in commands}))
def test_examples_parse(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0])[1:]
    if "--" in words:
        at = words.index("--")
        inner = words[at + 1:]
        if inner[0] == "zreplay":
            parser().parse_args(inner[1:])
    parser().parse_args(words)


def imported(*words: str) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    program = ("import sys, io, contextlib\nfrom replay.cli import main\n"
               "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
               f"    main({list(words)!r})\nprint('\\n'.join(sys.modules))")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_loads_no_verb_and_no_compiler() -> None:
    loaded = imported("--help")
    assert not loaded & {"numba", "llvmlite", "pandas", "scipy", "numpy", "pyarrow", "rich", "replay.reference.engine",
                         "replay.cli.replay_"}
    assert "replay.cli.verbs" in loaded


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_loads_no_compiler(verb: str) -> None:
    assert not imported(verb, "--help") & {"numba", "llvmlite", "pandas", "scipy"}


def test_version_names_what_computes(capsys: pytest.CaptureFixture[str]) -> None:
    import zlib
    from importlib.metadata import version

    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("zreplay ")
    assert f"CPython {sys.version.split()[0]}" in out
    for package in ("numpy", "pyarrow", "numba", "pyelftools", "simpy"):
        assert f"{package} {version(package)}" in out
    assert re.search(rf"^  zstd +libzstd 1\.5\.\d \(zstandard {version('zstandard')}\) \(Linux 6\.12\)$", out, re.M)
    assert re.search(r"^  zstd +libzstd 1\.5\.7 .*\(Linux 6\.18 to 7\.3\)$", out, re.M)
    assert f"zlib {zlib.ZLIB_RUNTIME_VERSION}" in out
    for name in ("lz4", "lz4hc", "lzo", "lzo-rle", "842"):
        assert re.search(rf"^  {name} +zreplay's own code, \S+", out, re.M)


# ---- terminals ----------------------------------------------------------------------------------------------

ROWS = [("check", "compared", "what it is about"), ("store.length", "1,234", "how many bytes a page takes when it is stored"),
        ("x", "5", "")]


def test_a_table_is_as_wide_as_it_is_on_a_pipe() -> None:
    assert table(ROWS, right=[1]).splitlines() == [
        "check         compared  what it is about", "store.length     1,234  how many bytes a page takes when it is stored",
        "x                    5"]
    assert fitting(100) == 100


def test_a_table_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    folded = table(ROWS, right=[1])
    assert max(map(len, folded.splitlines())) <= 48
    assert "store.length     1,234  how many bytes a page" in folded
    monkeypatch.setenv("COLUMNS", "30")
    assert table(ROWS, right=[1]).splitlines() == [
        "store.length", "  compared: 1,234", "  what it is about: how many", "    bytes a page takes when it", "    is stored",
        "x", "  compared: 5"]
    assert table(ROWS, right=[1], fit=False).count("\n") == 2


def test_no_word_of_a_table_is_lost_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    words = set(re.findall(r"\w+", table(ROWS)))
    for columns in range(20, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = re.findall(r"\w+", table(ROWS, right=[1]))
        assert words - {"check", "what", "it", "is", "about"} <= set(shown)


def on_a_terminal(words: list[str], columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; returns its status and all that it printed."""
    import fcntl
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    running = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdin=follower, stdout=follower, stderr=follower,
                               env={**os.environ, "TERM": "xterm", **environment})
    os.close(follower)
    said = b""
    with contextlib.closing(os.fdopen(leader, "rb", buffering=0)) as screen:
        while select.select([screen], [], [], 120)[0]:
            try:
                piece = screen.read(65536)
            except OSError as problem:
                if problem.errno != errno.EIO:
                    raise
                # The other side is closed.
                break
            if not piece:
                break
            said += piece
    return running.wait(120), said.decode().replace("\r\n", "\n")


def test_colour_on_a_terminal_that_wants_it(samples: dict[str, Path], tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    shutil.copytree(samples["7.2-lz4-edge"], sample, ignore=shutil.ignore_patterns("cache"))
    words = ["replay", str(sample), "--check", "store.length"]
    status, said = on_a_terminal(words)
    assert status == 0
    assert "\033[1;32mPASS\033[0m" in said
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        status, said = on_a_terminal(words, **environment)
        assert status == 0
        assert not re.search(r"\033\[[\d;]*3[0-7]m", said), environment
        assert re.search(r"PASS\s", said)
    assert "\033" not in said, "a dumb terminal is sent no escapes at all"


def test_a_narrow_terminal_gets_narrow_lines(samples: dict[str, Path]) -> None:
    status, said = on_a_terminal(["info", str(samples["7.2-lz4-edge"])], 40, NO_COLOR="1")
    assert status == 0
    lines = [re.sub(r"\033\[[\d;?]*[A-Za-z]", "", line) for line in said.splitlines()]
    assert max(map(len, lines)) <= 40
    assert any("lz4, zsmalloc chain size 8" in line for line in lines)


def test_what_programs_read_is_no_narrower(capsys: pytest.CaptureFixture[str], samples: dict[str, Path],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["info", "--json", str(samples["7.2-lz4-edge"])]) == 0
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["info", "--json", str(samples["7.2-lz4-edge"])]) == 0
    assert capsys.readouterr().out == wide


def test_nothing_is_painted_on_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    # Others force colour through pipes; a log of ours has none.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert painted("PASS") == "PASS"
    done = subprocess.run([*COMMAND, "info"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\033" not in done.stdout + done.stderr


def test_info_alone_lists_what_ships(capsys: pytest.CaptureFixture[str], samples: dict[str, Path], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in found] == [str(path) for path in samples.values()]
    monkeypatch.chdir(ROOT)
    assert main(["info"]) == 0
    assert re.search(r"^7\.2\.13 +lz4 +1,985  traces/samples/7\.2-lz4-edge$", capsys.readouterr().out, re.M)


# ---- Ctrl-C -------------------------------------------------------------------------------------------------


def interrupted(patch: str, *words: str | Path) -> tuple[int, str]:
    """Run the command with Ctrl-C where ``patch`` puts ``stop``; returns its status and what it said."""
    # Whoever runs the tests in the background has it ignored, and what is ignored is inherited.
    program = ("import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
               "def stop(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
               f"{patch}\nfrom replay.cli import main\nsys.exit(main())")
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("moment", [
    "import replay.reference.predictions as p; p._compute = stop",
    # Within the writing of what is kept for the next replay.
    "import replay.reference.predictions as p; p.os.replace = stop",
    "import replay.reference.engine as e; e.handler_table = stop",
])
def test_an_interrupted_replay_leaves_the_recording_as_it_was(samples: dict[str, Path], tmp_path: Path, moment: str) -> None:
    copy = tmp_path / "sample"
    shutil.copytree(samples["7.2-lz4-edge"], copy, ignore=shutil.ignore_patterns("cache"))
    before = listing(tmp_path)
    status, said = interrupted(moment, "replay", copy)
    assert status == 130
    assert said == "zreplay: interrupted; nothing half-written was left behind.\n"
    after = [name for name in listing(tmp_path) if name != "sample/cache"]
    # What was compressed by then may be kept, whole.
    assert [name for name in after if not re.fullmatch(r"sample/cache/lz4-\w+\.parquet", name)] == before
    assert subprocess.run([*COMMAND, "replay", str(copy)], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("moment", [
    "from traces.recording import RecordingWriter as W; write = W.write_rows; "
    "W.write_rows = lambda *rows: (write(*rows), stop())",
    "from traces.recording import RecordingWriter as W; close = W.close; W.close = lambda *all: (stop(), close(*all))",
])
def test_an_interrupted_cut_leaves_nothing(samples: dict[str, Path], tmp_path: Path, moment: str) -> None:
    status, said = interrupted(moment, "cut", samples["7.2-lz4-edge"], "--from", "100", "--to", "1500", "-o", tmp_path / "part")
    assert status == 130
    assert said == "zreplay: interrupted; nothing half-written was left behind.\n"
    assert listing(tmp_path) == []


def test_an_interrupted_lab_run_leaves_nothing(tmp_path: Path) -> None:
    image = bytearray(4096)
    image[0x202:0x206] = b"HdrS"
    (tmp_path / "bzImage").write_bytes(image)
    before = listing(tmp_path)
    patch = ("import traces.lab.run as run, replay.cli.lab as lab, replay.cli.labcommon as common\n"
             "from traces.lab.kernels import BootKernel\n"
             "from pathlib import Path\n"
             "common.own = lambda image, modules: BootKernel('7.2', image, None, None, 'own')\n"
             "run.build = lambda *_: b''\nrun._boot = stop")
    status, said = interrupted(patch, "lab", "run", "--kernel", tmp_path / "bzImage", "-o", tmp_path / "run.zr")
    assert status == 130
    assert said == "zreplay: interrupted; nothing half-written was left behind.\n"
    assert listing(tmp_path) == before


def test_an_interrupted_table_leaves_nothing(samples: dict[str, Path], tmp_path: Path) -> None:
    status, said = interrupted("import os; os.replace = stop", "replay", samples["7.2-lz4-edge"], "--no-pages", "--table",
                               tmp_path / "table.json")
    assert status == 130
    assert said == "zreplay: interrupted; nothing half-written was left behind.\n"
    assert listing(tmp_path) == []


def test_an_older_page_is_not_said_to_be_what_was_finished(samples: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("of yesterday")
    status, said = interrupted("import replay.cli.report as r; r._subject = stop", "report", samples["7.2-lz4-edge"], "-o",
                               tmp_path / "page.html")
    assert (status, said) == (130, "zreplay: interrupted; nothing half-written was left behind.\n")
    assert (tmp_path / "page.html").read_text() == "of yesterday"


def test_a_page_replaces_nothing_but_a_file(samples: dict[str, Path], tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path, tmp_path / "fifo", tmp_path / "none" / "page.html"):
        assert main(["report", str(samples["7.2-lz4-edge"]), "-o", str(place)]) == 2
        assert "cannot be written: it is not a file, or its directory is not there" in capsys.readouterr().err
    assert (tmp_path / "fifo").is_fifo()


def test_what_was_finished_is_said_to_be_kept(tmp_path: Path) -> None:
    done = tmp_path / "matrix"
    done.mkdir()
    patch = "import replay.cli.labmatrix as m\nm._cells = stop"
    status, said = interrupted(patch, "lab", "matrix", "-o", done)
    assert (status, said) == (130, f"zreplay: interrupted; what was finished is kept in {done}.\n")
    # A recorder that was stopped while its capture was being imported keeps the capture.
    (tmp_path / "run.zr.raw").mkdir()
    status, said = interrupted("import replay.cli.record as r\nr.record = stop", "record", "-o", tmp_path / "run.zr")
    assert status == 130
    assert f"'zreplay import {tmp_path}/run.zr.raw -o {tmp_path}/run.zr'" in said


# ---- completion and manual pages ----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_verb_and_option(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = script(shell)
    for each in parsers(parser()):
        for word in each.prog.split()[1:]:
            assert re.search(rf"\b{word}\b", text)
        for option in each._option_string_actions:
            assert option.lstrip("-") in text, option
    monkeypatch.setenv("COLUMNS", "33")
    assert script(shell) == text, "it does not depend on the terminal"
    assert os.environ["COLUMNS"] == "33"


def complete(shell: str, line: str, tmp_path: Path) -> set[str]:
    """Have a shell complete a line; skips where the shell is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / f"zreplay.{shell}"
    file.write_text(script(shell))
    words = shlex.split(line) + [""] * line.endswith(" ")
    ask = {"fish": f"source {file}; complete -C {shlex.quote(line)}",
           "bash": f"source {file}; COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); "
                   f"COMP_CWORD={len(words) - 1}; $(complete -p zreplay | sed 's/.*-F \\([^ ]*\\).*/\\1/') zreplay "
                   f"{shlex.quote(words[-1])} {shlex.quote(words[-2])}; printf '%s\\n' \"${{COMPREPLY[@]}}\""}[shell]
    done = subprocess.run([shell, "-c", ask], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert not done.stderr, done.stderr
    return {found.split("\t")[0].strip() for found in done.stdout.splitlines() if found.strip()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    assert complete(shell, "zreplay re", tmp_path) >= {"replay", "record", "regress"}
    assert "vmcore" not in complete(shell, "zreplay re", tmp_path)
    assert complete(shell, "zreplay lab ", tmp_path) >= {"run", "kernels", "matrix"}
    assert "--keep-going" in complete(shell, "zreplay replay --k", tmp_path)
    assert complete(shell, "zreplay replay --engine ", tmp_path) >= {"fast", "reference"}
    (tmp_path / "run.zr").mkdir()
    assert any(found.startswith("run.zr") for found in complete(shell, "zreplay info r", tmp_path))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_of_its_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script(shell))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_without_shtab_says_what_to_install(monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "the package shtab is missing; install it: python -m pip install" in capsys.readouterr().err


def test_there_is_a_page_of_every_verb_with_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    made = pages()
    for each in parsers(parser()):
        text = made[f"{each.prog.replace(' ', '-')}.1"].replace("\\-", "-")
        assert f'.TH "{each.prog.replace(" ", "-").upper()}" 1 "2027-01-15"' in text
        if each.prog != "zreplay":
            for option in each._option_string_actions:
                assert option in text, (each.prog, option)
            assert "zreplay " in text.split(".SH")[-2], "ends with examples"
    assert len(made) == len(ALL)
    assert made == pages()


def test_pages_are_clean_roff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    assert write_pages([str(tmp_path / "man1")]) == 0
    assert f"{len(ALL)} pages" in capsys.readouterr().out
    for path in sorted((tmp_path / "man1").iterdir()):
        done = subprocess.run(["groff", "-ww", "-man", "-Tascii", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path.name
        assert f"{path.stem.upper()}(1)" in done.stdout


def test_what_pages_say_survives_roff(tmp_path: Path) -> None:
    from replay.cli.manpages import _escaped

    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    text = ".dot at the start, 'quoted', a\\b, ~/x^2 `y` --long-option -1"
    (tmp_path / "x.1").write_text(f".TH X 1\n.SH A\n.nf\n{_escaped(text)}\n")
    done = subprocess.run(["groff", "-ww", "-man", "-Tascii", str(tmp_path / "x.1")], capture_output=True, text=True,
                          check=True, env={**os.environ, "GROFF_NO_SGR": "1"})
    assert text in done.stdout


def test_help_goes_to_stdout_and_wrong_use_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["nosuchverb"])
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert "invalid choice: 'nosuchverb'" in said.err
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as left:
        main(["replay", "--help"])
    assert left.value.code == 0
    assert out.getvalue().startswith("usage: zreplay replay [options]")
    assert capsys.readouterr().err == ""
