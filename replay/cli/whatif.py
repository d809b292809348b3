# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay whatif``: what batching through IAA would gain, by the timing model."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from model.timing.calibrate import DEFAULT, SETUPS, TABLE, ZSTD_TABLE, Calibration, ModelledRun, NoFit, Setup, calibrate
from model.timing.gain import COMPRESSORS, GRADE, Answer, Line, Question, ask, predict, spread_of_setups
from model.timing.posted import METRICS, UNMODELLED
from replay.cli.replay_ import wrapped
from replay.cli.terminal import steps, table
from traces.errors import BadInput

__all__ = ["add_parser", "posted_report"]


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "whatif", help="what batching through IAA would gain, by a timing model",
        description="Simulate 30 usemem processes that store folios through IAA devices, as posted with v8, v12 and "
                    "v14 of the compress batching series, and say what another configuration would do. The model's "
                    f"free parameters come from one posted table ({TABLE}). All that is printed is modelled, not "
                    "measured; see docs/timing.md for what that is worth.")
    parser.add_argument("--posted", action="store_true",
                        help="print what the model says of every posted usemem table, next to what was posted")
    parser.add_argument("--setups", action="store_true",
                        help="try every assumed setup of the measured box and print which give the posted numbers "
                             "(takes minutes)")
    parser.add_argument("--setup", metavar="NAME", help=f"assume this setup of the measured box (default {DEFAULT}; "
                        f"one of {', '.join(name for name, setup in SETUPS.items() if setup.spread)})")
    asked = parser.add_argument_group("the configuration to ask about; what is not given is as the setup has it")
    asked.add_argument("--batch", type=_count(1, 512), metavar="N", help="pages compressed at once (default 8)")
    asked.add_argument("--folio", type=_folio, metavar="SIZE", help="size of folios, such as 4k, 64k (default) or 2M")
    asked.add_argument("--processes", type=_count(1, 1024), metavar="P",
                       help="processes, bound to CPU 0 and on (default 30)")
    asked.add_argument("--compressor", choices=COMPRESSORS, help="(default deflate-iaa)")
    asked.add_argument("--engines", type=_count(1, 64), metavar="E", help="engines per device")
    asked.add_argument("--devices", type=_count(1, 64), metavar="D", help="devices per package (default 4)")
    asked.add_argument("--packages", type=_count(1, 64), metavar="N", help="packages (default 2)")
    asked.add_argument("--cpus", type=_count(1, 1024), metavar="N", help="logical CPUs per package")
    asked.add_argument("--depth", type=_count(1, 4096), metavar="N", help="descriptors of a work queue (default 128)")
    asked.add_argument("--tries", type=_count(0, 100_000), metavar="N",
                       help="tries to get a descriptor before a page fails (default 1000; 0: wait for one)")
    asked.add_argument("--loads", type=_share, metavar="L", help="pages loaded per page stored (default 0)")
    asked.add_argument("--own", action="store_true",
                       help="each CPU uses its own device, instead of all devices of its package in turn")
    asked.add_argument("--seed", type=_count(0, 1 << 32), metavar="N", help="of the variation in the CPUs' work")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _count(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range."""
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} to {most}")
        return int(text)
    return parse


def _folio(text: str) -> int:
    """Return the pages of a folio: a power of two of 4 KiB, up to 2 MiB."""
    match = re.fullmatch(r"([0-9]{1,6})([kKmM])", text)
    size = int(match[1]) << (20 if match[2] in "mM" else 10) if match else 0
    if size not in {4096 << order for order in range(10)}:
        raise argparse.ArgumentTypeError(f"'{text}' is not the size of a folio: 4k, 8k, 16k and so on up to 2M")
    return size >> 12


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", text) or float(text) > 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 100")
    return float(text)


#: Options that say what is asked about, and so mean nothing with --posted or --setups.
_ASKED = ("batch", "processes", "compressor", "engines", "devices", "packages", "cpus", "depth", "tries", "loads",
          "seed")


def run(arguments: argparse.Namespace) -> int:
    """Answer, or print the model next to what was posted."""
    given = {name: value for name in _ASKED if (value := getattr(arguments, name)) is not None}
    if arguments.folio is not None:
        given["folio_pages"] = arguments.folio
    if arguments.own:
        given["spread"] = False
    if arguments.posted or arguments.setups:
        if given or (arguments.posted and arguments.setups) or (arguments.setups and arguments.setup):
            raise BadInput("whatif", "--posted" if arguments.posted else "--setups",
                           "asks about the configurations that were posted and goes with no other question",
                           "leave the other options away, or this one")
        return _setups(arguments.json) if arguments.setups else _posted(arguments)
    question = Question(**given)
    calibration = _calibration(arguments.setup)
    try:
        answer = ask(calibration, question)
        with steps() as progress:
            others = [] if arguments.setup else spread_of_setups(question, progress)
    except ValueError as problem:
        raise BadInput("whatif", "", str(problem), "ask about a box that can be") from None
    if arguments.json:
        print(json.dumps(_answer_data(answer, question) | {
            "setups": {other.calibration.setup.name: {
                metric: other.gain(metric) for metric in METRICS} for other in others}}))
    else:
        print("\n".join(_answer_report(answer, question, others)))
    return 0


def _calibration(name: str | None) -> Calibration:
    """Return a setup's calibration.

    :raises BadInput: if there is no such setup, or it gives no posted numbers
    """
    setup = SETUPS.get(name or DEFAULT)
    if setup is None:
        raise BadInput("whatif", f"--setup {name}", "is not a setup", f"name one of {', '.join(SETUPS)}")
    try:
        return calibrate(setup)
    except NoFit as problem:
        raise BadInput("whatif", f"--setup {name}", str(problem), "name another; 'zreplay whatif --setups' tries "
                       "them all") from None


def _head(calibration: Calibration) -> Iterator[str]:
    """Yield what was assumed and calibrated."""
    setup, costs = calibration.setup, calibration.costs
    yield from wrapped(f"grade: {GRADE}. Calibrated on {TABLE}, assuming the setup {_described(setup)}: "
                       f"{costs.cpu:,} ns of CPU work per stored page, {costs.compress:,} ns of an engine per page, "
                       f"{calibration.freeing:.1f} s of system time per process that is not of writing, the last "
                       f"process {100 * calibration.straggle:.0f} % later than modelled")


def _described(setup: Setup) -> str:
    return (f"{setup.name} ({setup.cpus} logical CPUs per package, {setup.engines} "
            f"engine{'s' if setup.engines != 1 else ''} per device, the series' compress jobs "
            f"{'over all devices of a package' if setup.spread else 'to the own device'})")


def _answer_report(answer: Answer, question: Question, others: Sequence[Answer]) -> Iterator[str]:
    yield from _head(answer.calibration)
    setup = answer.calibration.setup
    columns: list[tuple[str, ...]] = [(
        "configuration", "batch", "processes", "folio", "total KB/s", "elapsed s", "sys s", "compressing ns/page",
        "busiest device", "deepest queue", "retries/page", "failed pages")]
    columns.append(_columns("posted, without the series", 1, 30, 16, answer.baseline))
    columns.append(_columns("posted, with the series", 8, 30, 16, answer.series))
    columns.append(_columns("asked", question.batch, question.processes, question.folio_pages, answer.asked))
    yield table(columns, right=range(1, len(columns[0])))
    box = answer.box
    yield from wrapped(f"asked: {question.compressor}, {box.packages} packages of {box.cpus} CPUs and {box.devices} "
                       f"devices of {box.engines} engines, queues of {box.depth}, "
                       + ("jobs over all devices of a package" if box.spread else "each CPU its own device") + ", "
                       + (f"{box.tries} tries" if box.tries else "waiting")
                       + f" for a descriptor, {question.loads:g} loads per store")
    for over, name in (("baseline", "without the series"), ("series", "with it")):
        changes = ", ".join(f"{metric} {answer.gain(metric, over):+.1f} %" for metric in METRICS
                            if metric != "average throughput")
        yield f"asked against posted {name}: {changes} ({GRADE})"
    if question.processes != 30:
        yield from wrapped("throughput and system time are of all processes: compare them between equal numbers of "
                           "processes")
    if answer.asked.sample.failed:
        yield from wrapped("pages whose compression failed count as stored: zswap stores them as they are or rejects "
                           "the folio, which is not modelled")
    if others:
        gains = sorted((other.gain("total throughput"), other.calibration.setup.name) for other in others)
        yield from wrapped(f"total throughput against posted without the series, under each of {len(others)} setups "
                           f"that give the posted throughputs: {gains[0][0]:+.1f} % ({gains[0][1]}) to "
                           f"{gains[-1][0]:+.1f} % ({gains[-1][1]}), {setup.name} among them; which one was measured "
                           "was not posted")


def _columns(name: str, batch: int, processes: int, folio_pages: int, outcome: ModelledRun) -> tuple[str, ...]:
    figures, sample = outcome.figures, outcome.sample
    pages = max(1, sample.compressed + sample.failed)
    size = folio_pages * 4
    return (name, str(batch), str(processes), f"{size}K" if size < 1024 else f"{size >> 10}M", f"{figures.total:,.0f}",
            f"{figures.elapsed:.2f}", f"{figures.sys:,.2f}",
            f"{sum(sample.stalled_ns) / len(sample.stalled_ns):,.0f}", f"{100 * max(sample.busy):.0f} %",
            str(sample.deepest), f"{sample.retries / pages:.2f}", str(sample.failed))


def _answer_data(answer: Answer, question: Question) -> dict[str, Any]:
    def outcome(one: ModelledRun) -> dict[str, Any]:
        return {metric: one.figures.of(metric) for metric in METRICS} | {
            "compressing ns/page": sum(one.sample.stalled_ns) / len(one.sample.stalled_ns), "busy": one.sample.busy,
            "deepest queue": one.sample.deepest, "retries": one.sample.retries, "failed": one.sample.failed}

    return {"grade": GRADE, "calibrated on": TABLE, "setup": answer.calibration.setup.name,
            "question": vars(question), "box": vars(answer.box), "baseline": outcome(answer.baseline),
            "series": outcome(answer.series), "asked": outcome(answer.asked)}


def _posted(arguments: argparse.Namespace) -> int:
    """Print the model next to every posted table."""
    calibration = _calibration(arguments.setup)
    with steps() as progress:
        lines = list(predict(calibration, progress))
    if arguments.json:
        print(json.dumps({"grade": GRADE, "calibrated on": TABLE, "setup": calibration.setup.name, "lines": [
            {"table": line.row.name, "source": line.row.source, "metric": line.metric, "posted": line.posted,
             "modelled": line.said, "posted gain": line.posted_gain, "modelled gain": line.said_gain,
             "error": line.error, "use": line.use} for line in lines]}))
    else:
        print("\n".join(posted_report(calibration, lines)))
    return 0


def posted_report(calibration: Calibration, lines: Sequence[Line]) -> Iterator[str]:
    """Yield predicted next to posted, line by line of each posted table, and how far off they are."""
    yield from _head(calibration)
    yield from wrapped(f"zstd's time per page is taken from one more number, the baseline throughput of {ZSTD_TABLE}")
    rows: list[tuple[str, ...]] = [(
        "table", "line", "posted: without", "with", "gain %", "modelled: without", "with", "gain %", "error, points",
        "grade", "use")]
    for line in lines:
        digits = 0 if METRICS[line.metric] == "KB/s" else 2
        rows.append((line.row.name, f"{line.metric} ({METRICS[line.metric]})", *(
            f"{value:,.{digits}f}" for value in line.posted), f"{line.posted_gain:+.1f}", *(
            f"{value:,.{digits}f}" for value in line.said), f"{line.said_gain:+.1f}", f"{line.error:+.1f}", GRADE,
            line.use))
    yield table(rows, right=range(2, 9))
    yield from wrapped("gain: with the series against without; error: modelled gain less posted gain. Where the use is "
                       "not 'predicted', the calibration has seen the number")
    # Saying it next to the numbers: a reader of the table alone would take agreement for more than it is.
    yield from wrapped("the model knows neither kernels nor what a folio's size costs apart from its batches, so it "
                       "says the same of every table of one compressor: a small error of v12 or v14 says that the "
                       "posted gain is that of the table calibrated on, and no more")
    sources = {line.row.series: line.row.source for line in lines}
    yield from wrapped("posted in: " + ", ".join(f"{series} <{source}>" for series, source in sources.items()))
    yield from wrapped("not modelled, lines of v8's tables that count and do not time: " + ", ".join(UNMODELLED))


def _setups(as_json: bool) -> int:
    """Search the costs under every setup anew, and print what came out."""
    found: list[dict[str, Any]] = []
    with steps() as progress:
        for done, setup in enumerate(SETUPS.values()):
            if progress is not None:
                progress("setups", done, len(SETUPS))
            try:
                calibration = calibrate(setup)
            except NoFit:
                found.append({"setup": setup.name, "fits": False})
                continue
            found.append({"setup": setup.name, "fits": True, "cpu ns/page": calibration.costs.cpu,
                          "engine ns/page": calibration.costs.compress, "freeing s": calibration.freeing,
                          "straggle": calibration.straggle, "residual": calibration.residual})
    if as_json:
        print(json.dumps({"grade": GRADE, "calibrated on": TABLE, "setups": found}))
        return 0
    rows = [("setup", "fits", "cpu ns/page", "engine ns/page", "freeing s", "straggle %", "residual %", "grade")]
    for one in found:
        if one["fits"]:
            rows.append((one["setup"], "yes", f"{one['cpu ns/page']:,}", f"{one['engine ns/page']:,}",
                         f"{one['freeing s']:.2f}", f"{100 * one['straggle']:.1f}", f"{100 * one['residual']:.2f}",
                         GRADE))
        else:
            rows.append((one["setup"], "no", *["-"] * 5, GRADE))
    print(table(rows, right=range(2, 7)))
    for text in wrapped(f"fits: some costs give both throughputs of {TABLE}, and no page fails; residual: what is left "
                        f"of its elapsed and system times; default: {DEFAULT}. '-own': the series with each CPU on its "
                        "own device"):
        print(text)
    return 0
