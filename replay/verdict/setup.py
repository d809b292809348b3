# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay needs before its first event: the revision, the model, the compressors' predictions, the engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from model.crypto import Compressor, ModelledCompressor, UnsupportedCompressor, compressor_for
from model.effects import Effect
from model.revisions import REVISIONS
from model.zswap import KERNEL_COMPRESSORS, Zswap
from replay.iaa.check import DriverRun, run_driver
from replay.iaa.jobs import has_devices
from replay.reference.checks import Tally
from replay.reference.engine import Engine
from replay.reference.kernelrevision import posting_note, revision_of_kernel
from replay.reference.modelstate import load_state
from replay.reference.objectwords import set_layout
from replay.reference.predictions import Predictions, predict
from replay.verdict.lineevidence import line_hint, line_notes
from replay.verdict.objectcompressor import judge
from traces import compiling
from traces.errors import BadInput
from traces.facts import FACTS, how_to_set
from traces.record.release import release_line
from traces.recording import Recording
from traces.suggestion import meant

__all__ = ["build_model", "choose_revision", "kernel_release", "open_engine", "predictions_for", "recorded_compressors",
           "switched_to"]


def choose_revision(recording: Recording, revision: str | type[Zswap] | None) -> tuple[str, type[Zswap]]:
    """Return a revision's name and class.

    :param revision: a shipped revision's name, a class, or None for the one that mirrors the recorded kernel, a
        posting's where it was built with the posting's patches
    :raises BadInput: when there is no such revision, or none mirrors the kernel, or the manifest names two kernels
    """
    if isinstance(revision, type):
        return revision.__name__, revision
    if revision is not None:
        if revision not in REVISIONS:
            raise BadInput(recording.path, "", f"there is no revision '{revision}'{meant(revision, REVISIONS)}",
                           f"choose one of {', '.join(REVISIONS)}")
        return revision, REVISIONS[revision]
    kernel = recording.manifest["kernel"]
    lines = {release_line(kernel.get(key)) for key in ("version", "release")} - {None}
    if len(lines) > 1:
        raise BadInput(recording.path, "", f"its configuration is that of kernel {kernel['version']} and its release "
                       f"is {kernel['release']}: which of them ran is not known",
                       f"name a revision with --revision: {', '.join(REVISIONS)}{line_hint(recording)}")
    name = revision_of_kernel(kernel)
    if name is None:
        release = kernel_release(recording)
        raise BadInput(recording.path, "", f"no revision mirrors its kernel ({release or 'release not recorded'})",
                       f"name one with --revision: {', '.join(REVISIONS)}{line_hint(recording)}")
    return name, REVISIONS[name]


def kernel_release(recording: Recording) -> str:
    """Return the recorded kernel's version, from its configuration or its release name."""
    kernel = recording.manifest["kernel"]
    return str(kernel.get("version") or kernel.get("release") or "")


def _compressor(recording: Recording, name: str, revision: type[Zswap]) -> tuple[Compressor | None, str]:
    """Return the compressor and what is wrong with it on this machine, or None and why there is none.

    :raises BadInput: for a compressor no kernel has
    """
    if name not in KERNEL_COMPRESSORS:
        raise BadInput(recording.path, "", f"its compressor '{name}' is not one that any kernel has "
                       f"({', '.join(KERNEL_COMPRESSORS)})", "correct it with 'zreplay import --compressor'")
    if not recording.manifest.get("pages", {}).get("with_bytes"):
        return None, ""
    try:
        if name.startswith("deflate-iaa") and has_devices(recording):
            # Compiled code takes a second to load.
            from replay.iaa.compressor import EMULATED

            compressor: Compressor = EMULATED[name](revision.kernel_line)
        else:
            compressor = compressor_for(name, revision.kernel_line)
    except UnsupportedCompressor as problem:
        return None, str(problem)
    compiling.watch()
    problems = compressor.self_check()
    return compressor, f"{compressor.ident} is not exact on this machine: {problems[0]}" if problems else ""


def switched_to(recording: Recording) -> list[str]:
    """Return the compressors that were switched to during the recording, by name."""
    names = set()
    for text in recording.texts():
        found = re.match(r"(?:param )?compressor=(\S+)$", text)
        if found and found[1] in KERNEL_COMPRESSORS:
            names.add(found[1])
    return sorted(names - {recording.manifest["config"]["compressor"]})


def recorded_compressors(recording: Recording) -> list[Compressor]:
    """Return the compressors that were in use, the one at the start first.

    :raises BadInput: when one has no exact implementation on this machine
    """
    _, kind = choose_revision(recording, None)
    found = []
    for algorithm in (recording.manifest["config"]["compressor"], *switched_to(recording)):
        compressor, reason = _compressor(recording, algorithm, kind)
        if compressor is None or reason or isinstance(compressor, ModelledCompressor):
            reason = reason or ("" if compressor is None else
                                f"{algorithm} is hardware, whose output cannot be computed here")
            raise BadInput(recording.path, "", reason or f"has no page bytes to use {algorithm} on",
                           "record with a compressor that is exact here ('zreplay doctor' lists them)")
        found.append(compressor)
    return found


def build_model(recording: Recording, revision: type[Zswap]) -> Zswap:
    """Return a model configured as the recorded box was.

    :raises BadInput: when the recording does not say what the model needs
    """
    config = recording.manifest["config"]
    needed = (("compressor", str), ("totalram_pages", int))
    lacking = [key for key, kind in needed if not isinstance(config.get(key), kind)]
    if lacking:
        facts = [fact for fact in FACTS if fact.key.replace("-", "_") in lacking]
        raise BadInput(recording.path, "manifest.json", f"does not say {' and '.join(lacking)}",
                       f"set what {' and '.join(repr(fact.command) for fact in facts)} print on the recorded "
                       f"machine: {how_to_set(recording.path, facts)}")
    try:
        model = revision(totalram_pages=config["totalram_pages"], compressor=config["compressor"],
                         chain_size=config.get("chain_size", 8))
        for name, value in config.get("params", {}).items():
            if name != "compressor":
                model.set_param(name, str(value))
    except ValueError as problem:
        raise BadInput(recording.path, "manifest.json", f"its configuration is not possible ({problem})",
                       "record or import again") from None
    return model


def predictions_for(recording: Recording, revision: str | type[Zswap] | None = None, *, pages: bool = True,
                    progress: Callable[[str, int, int], None] | None = None) -> Predictions:
    """Return what the recording's compressors, those that were switched to too, give for its pages; kept next to it.

    :param revision: of whose kernel line the compressors are; None for the one that mirrors the kernel
    :param pages: False for none
    :raises BadInput: when no revision mirrors the kernel, or a page does not match its digest
    """
    _, kind = choose_revision(recording, revision)
    algorithm = recording.manifest["config"]["compressor"]
    compressors: dict[str, Compressor] = {}
    inexact: dict[str, str] = {}
    reason = "left out (--no-pages)"
    for other in reversed([algorithm, *switched_to(recording)]) if pages else ():
        compressor, reason = _compressor(recording, other, kind)
        if compressor is not None:
            compressors[other] = compressor
            if reason:
                inexact[other] = reason
                reason = ""
    predictions = predict(recording, algorithm, compressors, reason,
                          progress=None if progress is None else
                          lambda done, total: progress("compressing", done, total))
    predictions.inexact = inexact
    return predictions


def _occurs(recording: Recording, event: str) -> bool:
    """True where a recording has an event; the manifest of an older one does not count them."""
    kinds = recording.manifest.get("kinds")
    if kinds is not None:
        return bool(kinds.get(event))
    return event in recording.counts()


def open_engine(recording: Recording, revision: str | type[Zswap] | None, tally: Tally, *, keep_going: bool = False,
                pages: bool = True, observe: Callable[[int, str, Effect], None] | None = None,
                progress: Callable[[str, int, int], None] | None = None,
                driver: DriverRun | None = None) -> tuple[Engine, str, Predictions]:
    """Return an engine ready to replay a recording, the revision's name, and the compressor's predictions.

    :param driver: what :func:`replay.iaa.check.run_driver` says of the recording, None to have it found here
    """
    name, kind = choose_revision(recording, revision)
    model = build_model(recording, kind)
    began, compiled = time.perf_counter(), compiling.seconds()
    predictions = predictions_for(recording, kind, pages=pages, progress=progress)
    predictions.compiling = compiling.seconds() - compiled
    predictions.seconds = time.perf_counter() - began - predictions.compiling
    in_use = {recording.manifest["config"]["compressor"], *switched_to(recording)}
    reasons, notes = judge(recording, predictions, in_use)
    engine = Engine(recording, model, tally, predictions, keep_going=keep_going, observe=observe)
    posting = posting_note(recording.manifest["kernel"], name)
    engine.start_reasons = reasons
    engine.start_notes = [*notes, *line_notes(recording), *([posting] if posting else [])]
    # The compiler decides whether zswap_writeback_entry() is inlined: hits show that it is called.  A probe that was
    # never hit shows nothing, as it may sit on a copy that nothing calls.
    if "zswap_writeback_entry" in engine.state.captured and not model.WRITEBACK_APART:
        model.WRITEBACK_APART = _occurs(recording, "zswap_writeback_entry")
    driver = driver or run_driver(recording, kind.crypto_layer, pages=pages)
    if driver is not None:
        engine.state.driver_results, engine.state.driver_stopped = driver.results, driver.stopped
        if driver.nothing:
            for algorithm in ("deflate-iaa", "deflate-iaa-dynamic"):
                predictions.inexact[algorithm] = f"what became of its calls is not known: {driver.nothing}"
    engine.invariants.revision_name = name
    engine.zsmalloc.keep_writes = (recording.path / "objects.parquet").is_file() and bool(predictions.compressors)
    state = recording.document("state")
    set_layout(engine, recording, (state or {}).get("object_layout"))
    if state is not None:
        load_state(engine, state)
        engine.state.settings.begin(model, engine.truth.phase)
    return engine, name, predictions
