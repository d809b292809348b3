# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a user's revision so that whatever it does ends in a verdict or in one sentence that names its own line.

:func:`guarded` goes around a replay or a run: it keeps the revision's prints off stdout, bounds its memory and its
time, and turns what comes out of it (an exception of any kind, ``sys.exit``, a loop) into
:class:`~traces.errors.BadInput`.  Inside, :func:`watched` goes around every step that is begun: it looks at each
effect, and counts the steps.  Neither does anything for shipped revisions.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, TypeVar

import model
from model.effects import Effect, Steps
from model.zswap import Zswap
from replay.userrev.confinement import bounded_memory, interruptible, no_exit, output_to_stderr
from replay.userrev.effectnames import known_effects, short, wrong_with
from replay.userrev.watchdog import VARIABLE, TooLong, end_process, limit, watchdog
from traces.errors import BadInput

__all__ = ["EFFECTS", "STEPS", "Guard", "RevisionFault", "active", "confined", "files_of", "guarded", "is_own",
           "own_classes", "watched"]

T = TypeVar("T")
#: Steps of a model (effects and questions) that one event may take.  A store of the largest folio takes some 20,000, a
#: compaction that no probe shows some ten for each object it moves.
STEPS: Final = 4_000_000
#: what to do about an effect that there is not
EFFECTS: Final = "mend it: the shipped steps in model/ show what each effect holds"
_MODEL: Final = str(Path(model.__file__).parent)
#: Where steps are, which a user's may send round in circles; what is below (compressors) may take its time.
_STEPS_IN: Final = frozenset({_MODEL, str(Path(_MODEL, "revisions"))})
_REPLAY: Final = str(Path(__file__).parents[1])
#: Modules between a user's methods and those that call them.
_BETWEEN: Final = frozenset(str(Path(__file__).with_name(name)) for name in ("guard.py", "overrides.py"))
_PROJECT: Final = ("model", "replay", "traces")
_ACTIVE: ContextVar[Guard | None] = ContextVar("guard", default=None)


class RevisionFault(Exception):
    """A user's revision does what none may.

    :param place: (file, line) of its own
    :param what: what is wrong, after "revision X"
    :param todo: what to do next
    """

    def __init__(self, place: tuple[str, int], what: str, todo: str) -> None:
        self.place, self.what, self.todo = place, what, todo
        super().__init__(what)


def is_own(kind: type) -> bool:
    """True for a class that does not ship: a user's."""
    return kind.__module__.partition(".")[0] not in {"model", *sys.stdlib_module_names}


def own_classes(kind: type[Zswap]) -> list[type]:
    """Return the classes of a revision that are the user's, most special first."""
    return [each for each in kind.__mro__ if is_own(each)]


def files_of(kinds: Iterable[type[Zswap]]) -> dict[str, int]:
    """Return the files that users' revisions come from -> the line of the class, 1 where that is not known."""
    found: dict[str, int] = {}
    for kind in kinds:
        for each in own_classes(kind):
            codes = [code for code in map(_code, vars(each).values()) if code is not None]
            lines = [(code.co_filename, code.co_firstlineno) for code in codes]
            file = getattr(sys.modules.get(each.__module__), "__file__", None)
            if file is not None:
                lines.append((file, 1))
            for name, line in lines:
                found.setdefault(name, line)
    return found


def _code(value: Any) -> CodeType | None:
    value = getattr(value, "__wrapped__", getattr(value, "__func__", getattr(value, "fget", value)))
    return value.__code__ if isinstance(value, FunctionType) else None


def active() -> Guard | None:
    """Return the guard that is around what runs now, None where only shipped revisions run."""
    return _ACTIVE.get()


class Guard:
    """What is known of a user's code while it runs.

    :param name: what messages call it ("revision V15")
    :param files: its files, and a line of each
    :param recording: what is replayed, ``""`` while the file is loaded
    """

    def __init__(self, name: str, files: dict[str, int], recording: str) -> None:
        self.name, self.files, self.recording = name, files, recording
        #: number of the event at hand
        self.now: Callable[[], int] = lambda: -1
        self.steps = self.all_steps = 0
        self.at = -1
        self.step: Watched | None = None
        #: what a method of the revision returned last: its place, its name, the value
        self.returned: tuple[tuple[str, int], str, Any] | None = None
        self.interrupted = False
        self.late: tuple[str, int] | None = None
        self.memory = 0

    # ---- where it is ------------------------------------------------------------------------------------

    def _frames(self, frame: FrameType | None) -> Iterator[FrameType]:
        """Yield a frame and those that called it, up to the code that runs the model."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(_REPLAY) and name not in _BETWEEN:
                return
            yield frame
            frame = frame.f_back

    def inside(self, frame: FrameType | None) -> bool:
        """True when a frame, or one that called it, is of the user's file or of the model."""
        return any(each.f_code.co_filename in self.files or str(Path(each.f_code.co_filename).parent) in _STEPS_IN
                   for each in self._frames(frame))

    def innermost(self, frame: FrameType | None) -> tuple[str, int] | None:
        """Return the place in the user's file that a frame was called from."""
        return next(((each.f_code.co_filename, each.f_lineno) for each in self._frames(frame)
                     if each.f_code.co_filename in self.files), None)

    def suspended(self) -> tuple[str, int] | None:
        """Return the place in the user's file at which the step stands that has yielded last."""
        gen, place = self.step.gen if self.step is not None else None, None
        while gen is not None:
            frame = getattr(gen, "gi_frame", None)
            if frame is not None and frame.f_code.co_filename in self.files:
                place = frame.f_code.co_filename, frame.f_lineno
            gen = getattr(gen, "gi_yieldfrom", None)
        return place

    def last_place(self) -> tuple[str, int]:
        """Return the last place in the user's file that is known of."""
        if self.returned is not None:
            return self.returned[0]
        return next(iter(self.files.items()), (self.name, 1))

    # ---- what is wrong ----------------------------------------------------------------------------------

    def sentence(self, fault: RevisionFault) -> BadInput:
        """Return what is reported of a fault: the user's line, the event, what is wrong and what to do."""
        event = self.now()
        where = f"event {event} of {self.recording}" if event >= 0 else self.recording
        file, line = fault.place
        return BadInput(f"{file}:{line}", where, f"{self.name} {fault.what}", fault.todo)

    def fired(self, frame: FrameType | None, last: bool) -> None:
        """The watchdog's word: time is up."""
        self.late = self.innermost(frame) or self.suspended() or self.last_place()
        if last:
            end_process(str(self.sentence(_too_long(self.late))))

    def reported(self, problem: BaseException) -> BaseException:
        """Return what is raised instead of an exception that came out of the revision, or that itself."""
        if isinstance(problem, RevisionFault):
            return self.sentence(problem)
        cause = problem.__context__
        if isinstance(problem, BadInput) and cause is not None and self._trace(cause)[0] is not None:
            # Other code has taken the user's exception for one of its own.
            return self.reported(cause)
        if (isinstance(problem, KeyboardInterrupt) and self.interrupted) \
                or (type(problem).__module__.partition(".")[0] in _PROJECT and not isinstance(problem, TooLong)):
            return problem
        place, shipped = self._trace(problem)
        if isinstance(problem, TooLong):
            return self.sentence(_too_long(self.late or place or self.last_place()))
        if place is None and isinstance(problem, OSError):
            return problem
        after = ""
        if place is None:
            place = self.suspended()
            if place is not None:
                after = " after what it yielded there"
            else:
                place = self.last_place()
                if self.returned is not None:
                    after = f" after {self.returned[1]}() returned {short(self.returned[2])}"
            after += f" ({shipped})" if shipped else ""
        return self.sentence(_raised(problem, place, after, self.memory))

    def _trace(self, problem: BaseException) -> tuple[tuple[str, int] | None, str]:
        """Return the innermost place in the user's file that an exception came through, and that of the model."""
        place, shipped = None, ""
        if isinstance(problem, SyntaxError) and problem.filename in self.files:
            return (str(problem.filename), problem.lineno or 1), ""
        trace = problem.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name in self.files:
                place = name, trace.tb_lineno
            elif name.startswith(_MODEL):
                shipped = f"in model/{Path(name).relative_to(_MODEL)}:{trace.tb_lineno}"
            trace = trace.tb_next
        if place is None and problem.__cause__ is not None:
            # Python's own doing: a StopIteration becomes a RuntimeError.
            place = self._trace(problem.__cause__)[0]
        return place, shipped


def _too_long(place: tuple[str, int]) -> RevisionFault:
    return RevisionFault(place, f"has come no further for {limit():g} seconds of CPU time (or waits): it neither "
                         "yields nor returns", f"mend the loop, or give a slow step more time with {VARIABLE}")


def _raised(problem: BaseException, place: tuple[str, int], after: str, memory: int) -> RevisionFault:
    """Return what is reported of an exception.

    :param after: what happened before, in words
    :param memory: bytes that the revision might take
    """
    kind = type(problem).__name__
    if isinstance(problem, SystemExit):
        return RevisionFault(place, f"ends the process (SystemExit, status {short(problem.code)})",
                             "leave that out: a replay continues by itself")
    if isinstance(problem, MemoryError):
        bound = f"more than the {memory >> 20:,} MiB that it may" if memory else "all memory"
        return RevisionFault(place, f"takes {bound} (MemoryError)",
                             "mend what grows, or run it where there is more memory")
    if isinstance(problem, RecursionError):
        return RevisionFault(place, f"calls itself without end (RecursionError: {problem})", "mend the recursion")
    if isinstance(problem, SyntaxError):
        return RevisionFault(place, f"cannot be read ({kind}: {problem.msg})", "mend the file")
    if isinstance(problem, ImportError):
        return RevisionFault(place, f"needs what cannot be imported ({kind}: {problem})",
                             "install that, or mend the import")
    said = f": {problem}" if str(problem) else ""
    return RevisionFault(place, f"raises {kind}{said}{after}", "mend the file")


class Watched:
    """A step of a user's revision: each effect is looked at, and all are counted."""

    __slots__ = ("_guard", "_known", "gen")

    def __init__(self, gen: Any, guard: Guard) -> None:
        self.gen, self._guard, self._known = gen, guard, known_effects()
        if not hasattr(gen, "send"):
            guard.step = None
            raise RevisionFault(guard.last_place(), f"has a step that returns {short(gen)} where it has to yield its "
                                "effects", "make it a generator, as the shipped one is")

    def send(self, value: Any) -> Effect:
        """As a generator's; raises :class:`RevisionFault` for what is not an effect, and for too many steps."""
        guard = self._guard
        guard.step = self
        now = guard.now()
        if now != guard.at:
            guard.at, guard.steps = now, 0
        guard.steps += 1
        guard.all_steps += 1
        if guard.late is not None:
            raise TooLong
        if guard.steps > STEPS:
            raise RevisionFault(guard.suspended() or guard.last_place(), f"has taken {STEPS:,} steps at this event and "
                                "has not stopped", "mend the loop: no kernel function causes that many effects at once")
        effect: Effect = self.gen.send(value)
        try:
            sizes = self._known[effect[0]]
            if isinstance(effect, tuple) and (not sizes or len(effect) in sizes):
                return effect
        except (TypeError, LookupError):
            pass
        raise RevisionFault(guard.suspended() or guard.last_place(), wrong_with(effect),
                            EFFECTS)


def watched(steps: Steps[T]) -> Steps[T]:
    """Return steps that have just been begun, looked after where a user's revision runs."""
    guard = _ACTIVE.get()
    return steps if guard is None else Watched(steps, guard)  # type: ignore[return-value]


@contextlib.contextmanager
def confined(guard: Guard) -> Iterator[Guard]:
    """Run a guard's revision: stdout, exits, memory and time are controlled; the guard reports what it raises."""
    def interrupted() -> None:
        guard.interrupted = True

    token = _ACTIVE.set(guard)
    problem: BaseException | None = None
    try:
        with output_to_stderr(), no_exit(), bounded_memory() as guard.memory, interruptible(interrupted), \
                watchdog(guard.inside, lambda: guard.all_steps, guard.fired):
            yield guard
            if guard.late is not None:
                raise TooLong
    except BaseException as raised:
        problem = raised
    finally:
        _ACTIVE.reset(token)
    if problem is not None:
        reported = guard.reported(problem)
        raise reported from (None if reported is not problem else reported.__cause__)


@contextlib.contextmanager
def guarded(kinds: Iterable[Any], recording: object) -> Iterator[Guard | None]:
    """Run users' revisions on a recording; does nothing where all are shipped.

    :param kinds: what is run: classes, and names of shipped revisions, which need no guard
    :raises BadInput: for whatever a user's revision raises, does or does not do
    """
    own = [kind for kind in kinds if isinstance(kind, type) and is_own(kind)]
    if not own:
        yield None
        return
    name = "revision " + " or ".join(dict.fromkeys(kind.__name__ for kind in own))
    with confined(Guard(name, files_of(own), str(recording))) as guard:
        yield guard
