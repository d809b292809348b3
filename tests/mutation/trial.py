# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays samples against one mutant, in a process of its own that loads model and replay anew.

Processes are forked from one that has loaded the libraries and model.crypto, which no mutant touches (see ``warm``).
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from tests.mutation.hook import HITS, Substitute, counting, forget_model
from tests.mutation.mutator import Mutant, mutated

__all__ = ["OUTCOMES", "Sample", "Trial", "run_all", "survey"]

#: how a mutant can come out, the plainest first
OUTCOMES: Final = {
    "caught": "a check differs, or the verdict is UNDECIDED",
    "exception": "no check differs, but the model raises an exception",
    "refused": "no check differs, but the model cannot be put into a recording's start state",
    "timeout": "the replay does not end",
    "survived": "every sample is PASS",
}
#: CPU seconds that a replay may take: this many times what the unchanged model takes, and a least number
_TIMES: Final = 10
_LEAST: Final = 10.0
#: bytes of memory that a mutant may have
_MEMORY: Final = 4 << 30
#: wall-clock seconds after which a process is given up, however busy the machine
_GIVE_UP: Final = 900


@dataclass(frozen=True)
class Sample:
    """A recording to replay: under which revision (None: its kernel's), and what replaying it unmutated showed."""

    path: str
    revision: str | None = None
    seconds: float = 0.0
    events: int = 0
    reached: frozenset[tuple[str, int]] = frozenset()
    mirrors: str = ""

    @property
    def name(self) -> str:
        """Name of its directory."""
        return Path(self.path).name

    def reaches(self, mutant: Mutant) -> bool:
        """True when replaying it runs the statement that is changed; what runs on import, every replay does."""
        return not mutant.statement or (mutant.module, mutant.statement) in self.reached


@dataclass
class Trial:
    """What became of one mutant; ``tried`` are the samples replayed, ``reaching`` those that run what is changed."""

    mutant: Mutant
    outcome: str = "survived"
    check: str = ""
    sample: str = ""
    event: int | None = None
    detail: str = ""
    tried: list[str] = field(default_factory=list)
    reaching: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"name": self.mutant.name, **asdict(self)}


class _TooLong(BaseException):
    """The replay used up its CPU time; no handler of ordinary exceptions takes it."""


def _too_long(number: int, frame: object) -> None:
    raise _TooLong


def _replay(sample: Sample) -> tuple[Any, float]:
    """Replay a sample with whatever model is imported now; (result, CPU seconds)."""
    import replay
    import traces

    began = time.process_time()
    # Changes are made to the reference's code.
    result = replay.replay(traces.open_recording(sample.path), sample.revision, engine="reference")
    return result, time.process_time() - began


def _limited(sample: Sample) -> tuple[Any, float]:
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, max(_LEAST, _TIMES * sample.seconds))
    try:
        return _replay(sample)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _try(mutant: Mutant, samples: Sequence[Sample], root: str, shared: frozenset[str]) -> Trial:
    """Replay samples in order against a mutant until a check catches it."""
    out = Trial(mutant, reaching=[s.name for s in samples if s.reaches(mutant)])
    if not out.reaching:
        return out
    file = Path(root) / mutant.path
    forget_model()
    sys.meta_path.insert(0, Substitute({mutant.module: (file, lambda: mutated(file.read_text(), mutant.number,
                                                                                shared))}))
    for sample in samples:
        if sample.name not in out.reaching:
            continue
        out.tried.append(sample.name)
        outcome, check, event, detail = _judge(sample)
        if outcome == "survived" or (out.outcome != "survived" and outcome != "caught"):
            continue
        out.outcome, out.check, out.sample, out.event, out.detail = outcome, check, sample.name, event, detail
        if outcome in ("caught", "timeout"):
            break
    out.seconds = time.process_time()
    return out


def _judge(sample: Sample) -> tuple[str, str, int | None, str]:
    """Replay one sample: (outcome, check, event, what)."""
    from traces.errors import BadInput

    try:
        result, _ = _limited(sample)
    except _TooLong:
        return "timeout", "", None, ""
    except BadInput as problem:
        if problem.__cause__ is not None:  # what the model raised, as Engine.faults() reports it
            return "exception", "", None, f"{type(problem.__cause__).__name__}: {problem.__cause__}"[:200]
        return "refused", "", None, str(problem).replace(str(sample.path), sample.name)
    except (Exception, MemoryError) as problem:
        return "exception", "", None, f"{type(problem).__name__}: {problem}"[:200]
    if result.divergences:
        first = result.divergences[0]
        detail = f"{first.name}: recorded {first.recorded!r}, predicted {first.predicted!r} ({first.what})"
        return "caught", first.check, first.event, detail[:300]
    if result.verdict != "PASS":
        return "caught", result.verdict, None, "; ".join(result.reasons)[:300]
    return "survived", "", None, ""


def _survey(sample: Sample, modules: dict[str, str]) -> Sample | str:
    """Replay a sample against the model as it is: which statements it runs and how long it takes; or why not."""
    forget_model()
    sys.meta_path.insert(0, Substitute({name: (Path(file), lambda name=name, file=file:  # type: ignore[misc]
                                               counting(name, Path(file).read_text()))
                                        for name, file in modules.items()}))
    # Twice: the first one may compress pages, which later ones find done.
    _replay(sample)
    result, seconds = _replay(sample)
    if result.verdict != "PASS":
        return f"{sample.name} is {result.verdict} against the unchanged model: it shows nothing"
    return Sample(sample.path, sample.revision, seconds, result.events, frozenset(HITS), result.mirrors)


def _child(work: Callable[..., Any], args: tuple[Any, ...], answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        answer.send(work(*args))
    except Exception:
        # Nothing of a mutant ends here: it is the trial itself that went wrong.
        answer.send(RuntimeError(traceback.format_exc()))
    answer.close()


def _spread(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], processes: int) -> Iterator[tuple[int, Any]]:
    """Run jobs in processes of their own, `processes` at a time; yields (number, answer) as they end.

    The answer of a process that was killed, or had to be, is None.

    :raises RuntimeError: what went wrong in a trial that is not the mutant's doing
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.mutation.warm"])
    running: dict[Connection, tuple[int, Any, float]] = {}
    waiting = list(enumerate(jobs))[::-1]
    while waiting or running:
        while waiting and len(running) < processes:
            number, args = waiting.pop()
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, args, theirs))
            process.start()
            theirs.close()
            running[mine] = (number, process, time.monotonic())
        ended = wait(list(running), timeout=1.0)
        for connection in list(running):
            number, process, began = running[connection]
            if connection in ended:
                try:
                    answer = connection.recv()
                    if isinstance(answer, RuntimeError):
                        raise answer
                except EOFError:
                    answer = None
            elif time.monotonic() - began > _GIVE_UP:
                process.kill()
                answer = None
            else:
                continue
            process.join()
            connection.close()
            del running[connection]
            yield number, answer


def survey(samples: Sequence[Sample], modules: dict[str, str], processes: int,
           progress: Callable[[str, int, int], None] | None = None) -> list[Sample]:
    """Replay every sample unmutated; returns them with what they reach, those of least CPU time first.

    :param modules: the model's modules by name, with their files
    :raises RuntimeError: when one is not PASS: then it shows nothing
    """
    out = []
    for _, answer in _spread(_survey, [(sample, modules) for sample in samples], processes):
        if not isinstance(answer, Sample):
            raise RuntimeError(answer or "a replay against the model as it is died")
        out.append(answer)
        if progress is not None:
            progress("replaying unmutated", len(out), len(samples))
    return sorted(out, key=lambda s: (s.seconds, s.name))


def run_all(mutants: Sequence[Mutant], samples: Sequence[Sample], root: Path, shared: frozenset[str], processes: int,
            progress: Callable[[str, int, int], None] | None = None) -> list[Trial]:
    """Try every mutant against the samples in their order; returns trials in the mutants' order.

    A mutant whose statement no sample runs has survived without being run.
    """
    trials: dict[int, Trial] = {}
    jobs = [(mutant, samples, str(root), shared) for mutant in mutants]
    unreached = {n for n, mutant in enumerate(mutants) if not any(s.reaches(mutant) for s in samples)}
    trials.update((n, Trial(mutants[n])) for n in unreached)
    rest = [n for n in range(len(mutants)) if n not in unreached]
    for number, answer in _spread(_try, [jobs[n] for n in rest], processes):
        # A process that died without an answer ran out of time or memory.
        mutant = mutants[rest[number]]
        trials[rest[number]] = answer if answer is not None else Trial(mutant, "timeout", detail="its process died")
        if progress is not None:
            progress("mutants", len(trials), len(mutants))
    return [trials[n] for n in range(len(mutants))]
