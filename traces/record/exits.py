# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out of a command, for ``zreplay`` and for the recorder alone: one sentence and an exit status.

Only a verdict may end with status 1, so nothing here does.  What happens to a command from outside (a full disk, no
permission, a closed standard output) is 2, Ctrl-C 130, a reader that went away 141.  What only a mistake in the
project can explain is 70, with where to report it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from .oserrors import next_step, what_happened

__all__ = ["FAULT", "INTERRUPTED", "TRACEBACK", "WRONG", "check_words", "leave", "printable", "without_bytes"]

WRONG = 2
#: EX_SOFTWARE of sysexits.h
FAULT = 70
INTERRUPTED = 128 + signal.SIGINT
#: environment variable: with any value, a fault's traceback is printed before its sentence
TRACEBACK = "ZREPLAY_TRACEBACK"

#: How Python shows bytes in the text of an exception: as a literal, as an array or list of small numbers, as digits.
_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
                    r"|(?:\b[0-9]{1,3}\b(?:,?\s+)){7,}[0-9]{1,3}\b|\b(?:0x)?[0-9a-fA-F]{15,}\b", re.DOTALL)


def without_bytes(text: str) -> str:
    """Return the text of an exception without the bytes that it shows: they may be of pages."""
    return _BYTES.sub("(bytes not shown)", text)


def leave(run: Callable[[], int], known: tuple[type[BaseException], ...], kept: Callable[[], str],
          command: bool = True, place: Callable[[], str] = str) -> int:
    """Run a command and return its exit status; nothing but a parser's SystemExit comes out of it.

    :param run: the command
    :param known: exceptions whose message is the sentence for the user; their status is 2
    :param kept: says what an interrupted command has left
    :param place: names what is being written where the operating system does not say which file it refused
    :param command: True where the process is the command's own, so that its streams may be checked and replaced
    """
    if command and not _streams():
        _say("standard output is closed, so the result cannot be printed; send it to a file or to /dev/null")
        return WRONG
    with _Interruptions() as interruptions:
        try:
            status = run()
            _flush()
        except SystemExit:
            # The parser's: help, a version, wrong use.  What it printed may still be on its way.
            lost = _lost_output()
            if lost is None:
                raise
            return _output(lost)
        except known as problem:
            _say(str(problem).rstrip("."))
            status = WRONG
        except KeyboardInterrupt:
            return _interrupted(kept)
        except MemoryError:
            _say("out of memory; give it more, or run fewer things at the same time")
            status = WRONG
        except OSError as problem:
            lost = _lost_output()
            status = _system(problem, place()) if lost is None else _output(lost)
        except UnicodeEncodeError as problem:
            # The only text that has no bytes is a name that was none in UTF-8.
            status = _fault(problem) if not _foreign(str(problem.object)) else _name(str(problem.object))
        except Exception as problem:
            status = _fault(problem)
        if interruptions.seen:
            # A library swallowed it: its import takes every exception for a missing package.
            return _interrupted(kept)
    failed = _lost_output()
    return status if failed is None or status not in (0, 1, 3, 4) else _output(failed)


def printable(text: str) -> str:
    """Return text as one line that every terminal and file takes: control characters and no-UTF-8 bytes escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() if not _foreign(sign)
                   else f"\\x{ord(sign) - 0xdc00:02x}" for sign in text)


def check_words(words: list[str]) -> int | None:
    """Refuse command line words that are no UTF-8, before anything is begun; None where all are."""
    for word in words:
        if word == "--":
            return None
        if _foreign(word):
            return _name(word)
    return None


def _foreign(text: str) -> bool:
    return any(0xdc80 <= ord(sign) <= 0xdcff for sign in text)


def _name(text: str) -> int:
    _say(f"{text[:4096]}: the name is not UTF-8, and recordings keep names as UTF-8; rename it, or name it "
         "through a link")
    return WRONG


def _system(problem: OSError, output: str) -> int:
    """Say what the operating system refused, and to which file."""
    names = [os.fsdecode(name) for name in (problem.filename, problem.filename2)
             if isinstance(name, (str, bytes))]
    place = " to ".join(names) or output or "a file that it reads or writes"
    _say(f"{place}: {what_happened(problem)}; {next_step(problem.errno)}")
    _show(problem)
    return WRONG


def _fault(problem: BaseException) -> int:
    """Report a fault of the project: not the user's mistake, and where to report it."""
    _show(problem)
    trace, place = problem.__traceback__, ""
    while trace is not None:
        place = f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    said = " ".join(without_bytes(str(problem)).split())[:300]
    how = "that traceback" if os.environ.get(TRACEBACK) else \
        f"what it prints with {TRACEBACK}=1 in its environment"
    _say(f"this is a fault of zreplay itself ({type(problem).__name__}{': ' if said else ''}{said}{place}), "
         f"and not a verdict; report it where you have zreplay from, with {how}, the command and 'zreplay --version'")
    return FAULT


def _show(problem: BaseException) -> None:
    if os.environ.get(TRACEBACK):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__)
            sys.stderr.write(without_bytes("".join(lines)))


def _interrupted(kept: Callable[[], str]) -> int:
    _say(f"interrupted; {kept()}")
    # What is left to print is of no use, and must not fail at the very end.
    if _lost_output() is not None:
        _to_nowhere(sys.stdout)
    return INTERRUPTED


def _say(sentence: str) -> None:
    """Print a sentence to stderr, as a terminal may show it; where that fails, only the exit status is left."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"zreplay: {printable(sentence)}.", file=sys.stderr, flush=True)


# ---- streams ------------------------------------------------------------------------------------------------


class _Lenient(io.FileIO):
    """Standard error that may be full or gone: text that it does not take is lost without an error."""

    def write(self, data: Any) -> int:
        """Write what can be written."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


class _Output(io.FileIO):
    """Standard output that remembers why it was not written: parsers and loggers take no notice."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        """Write."""
        try:
            return super().write(data) or 0
        except OSError as problem:
            self.failed = problem
            raise


def _streams() -> bool:
    """Make the standard streams of a process safe to write to; False where standard output is closed."""
    # The next file opened would take the number of a closed stream, and output would be printed into it.
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        # What is in no encoding is escaped, as ever on stderr.
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Lenient(2, "w", closefd=False)),
                                      getattr(sys.stderr, "encoding", None) or "utf-8", "backslashreplace",
                                      line_buffering=True)
    if sys.stdout is None:
        return False
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Output(1, "w", closefd=False)), sys.stdout.encoding,
                                      "backslashreplace", line_buffering=sys.stdout.line_buffering)
    return True


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _lost_output() -> OSError | None:
    """Return why standard output does not take what was printed, None where it does."""
    try:
        _flush()
    except OSError as problem:
        return problem
    except ValueError:
        # Its closing has been reported already.
        return None
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "failed", None)


def _output(problem: OSError) -> int:
    """Give up standard output; returns the exit status."""
    _to_nowhere(sys.stdout)
    if isinstance(problem, BrokenPipeError):
        # The reader has gone.  The status that a shell gives of a process that SIGPIPE ended:
        # 0 would be PASS to a script.
        return 128 + signal.SIGPIPE
    _say(f"standard output: {os.strerror(problem.errno or errno.EIO)}, so what was printed is not whole; send it "
         "elsewhere")
    return WRONG


def _to_nowhere(stream: Any) -> None:
    """Discard what is left in a stream's buffer: Python flushes it at exit, and a failure would set the exit status."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


# ---- Ctrl-C -------------------------------------------------------------------------------------------------


class _Interruptions:
    """Notices a Ctrl-C that a library swallows, and raises it again as soon as that is safe.

    Libraries take every exception of an import for a package that is missing, and what is raised in a destructor or a
    callback is only printed.
    """

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None
        self._hook: Any = None

    def __enter__(self) -> _Interruptions:
        if threading.current_thread() is threading.main_thread() \
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
            sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            sys.unraisablehook = self._hook
            sys.meta_path.remove(self)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.default_int_handler(number, frame)

    def _unraisable(self, what: Any) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            # Not here: what is raised in this hook is only printed, too.
            again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            self._hook(what)

    def find_spec(self, *_: object) -> None:
        """Raise it at the next import, unless that import is part of cleaning up after it."""
        if self.seen and threading.current_thread() is threading.main_thread() \
                and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise KeyboardInterrupt
