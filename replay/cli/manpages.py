# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages of the command and of every verb, made of the parsers: ``make man``.

argparse-manpage (4.8) was tried first: it tears the titles of sub-commands (``.TH ZREPLAY CUT "1"``), leaves epilogues
out, where examples and exit statuses are, and dates pages with the day they were built.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from replay.cli.help import examples
from replay.cli.main import parser
from replay.cli.verbs import EXAMPLES, GROUPS
from replay.cli.versions import version

__all__ = ["main", "pages"]


def pages() -> dict[str, str]:
    """Return file name -> roff source of every page: ``zreplay.1``, ``zreplay-replay.1``, ``zreplay-lab-run.1``, ..."""
    top = parser()
    helps = {name: verb.help for verbs in GROUPS.values() for name, verb in verbs.items()}
    found = {"zreplay.1": _page(top, top.description or "", _top_sections(helps))}
    for words, each, line in _all_parsers(top):
        parts = [f"{each.prog.replace(' ', '-')}-{name}" for name in _parts(each)]
        found[f"{'-'.join(words)}.1"] = _page(each, line, _sections(each, parts))
    return found


def _all_parsers(top: argparse.ArgumentParser) -> Iterator[tuple[list[str], argparse.ArgumentParser, str]]:
    """Yield (words, parser, line on it) of every verb and of every part of one."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, each in action.choices.items():
                yield each.prog.split(), each, lines[name]
                yield from _all_parsers(each)


def _parts(of: argparse.ArgumentParser) -> list[str]:
    return [name for action in of._actions if isinstance(action, argparse._SubParsersAction) for name in action.choices]


def _escaped(text: str) -> str:
    """Return text as roff has it: no escapes, no hyphens that could be broken, no requests at a line's start."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return re.sub(r"(?m)^\.", "\\\\&.", text)


def _date() -> str:
    # Of the sources, where a package's build says so: two builds give the same pages.
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0")) or time.time()))


def _page(of: argparse.ArgumentParser, line: str, sections: Iterator[str]) -> str:
    name = of.prog.replace(" ", "-")
    head = f'.TH "{_escaped(name.upper())}" 1 "{_date()}" "zreplay {_escaped(version())}" "zreplay"\n'
    # apropos takes one line, without a final stop.
    return head + f".SH NAME\n{_escaped(name)} \\- {_escaped(' '.join(line.split()).rstrip('.'))}\n" + "".join(sections)


def _synopsis(of: argparse.ArgumentParser) -> str:
    usage = " ".join(of.format_usage().replace(" \\\n", " ").split()).removeprefix("usage: ")
    return f".SH SYNOPSIS\n.B {_escaped(of.prog)}\n{_escaped(usage.removeprefix(of.prog).strip())}\n"


def _text(text: str) -> Iterator[str]:
    """Yield paragraphs; lines that are indented (tables, commands) stay as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        yield ".PP\n"
        fixed = False
        for line in paragraph.splitlines():
            indented = line.startswith(" ")
            if indented != fixed:
                yield ".nf\n" if indented else ".fi\n"
                fixed = indented
            yield _escaped(line.rstrip()) + "\n"
        if fixed:
            yield ".fi\n"


def _invocation(action: argparse.Action, of: argparse.ArgumentParser) -> str:
    """Return how an argument is written: options bold, what they take in italics."""
    formatter = of._get_formatter()
    if not action.option_strings:
        name = action.metavar or action.dest
        return f"\\fI{_escaped(name if isinstance(name, str) else ' '.join(name))}\\fR"
    value = ""
    if action.nargs != 0:
        metavar = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
        value = f" \\fI{_escaped(metavar)}\\fR"
    return ", ".join(f"\\fB{_escaped(option)}\\fR{value}" for option in action.option_strings)


def _sections(of: argparse.ArgumentParser, parts: Sequence[str]) -> Iterator[str]:
    yield _synopsis(of)
    if of.description:
        yield ".SH DESCRIPTION\n"
        yield from _text(of.description)
    formatter = of._get_formatter()
    for group in of._action_groups:
        actions: list[Any] = [action for action in group._group_actions if action.help is not argparse.SUPPRESS
                              and not isinstance(action, argparse._SubParsersAction)]
        if not actions:
            continue
        title = {"positional arguments": "ARGUMENTS"}.get(group.title or "", (group.title or "").upper())
        yield f'.SH "{_escaped(title)}"\n'
        for action in actions:
            yield f".TP\n{_invocation(action, of)}\n"
            yield _escaped(formatter._expand_help(action) if action.help else
                           "a recording" if action.metavar == "REC" else "see above") + "\n"
    closing = of.epilog or ""
    if "zreplay " not in closing:
        closing += "\n\n" + (examples(EXAMPLES.get(of.prog, ())) or "")
    if closing.strip():
        yield ".SH NOTES AND EXAMPLES\n"
        yield from _text(closing)
    yield from _see_also(["zreplay", *parts] if parts else ["zreplay"])


def _top_sections(helps: dict[str, str]) -> Iterator[str]:
    top = parser("")
    yield ".SH SYNOPSIS\n.B zreplay\n\\fIVERB\\fR ...\n"
    for group, verbs in GROUPS.items():
        yield f'.SH "{_escaped(group.upper())}"\n'
        for name in verbs:
            yield f".TP\n\\fB{_escaped(name)}\\fR\n{_escaped(helps[name])}\n"
    yield ".SH EXIT STATUS\n"
    yield from _text(top.epilog or "")
    yield ".SH ENVIRONMENT\n"
    for name, what in (("NO_COLOR", "Print no colour."), ("COLUMNS", "How wide the terminal is."),
                       ("XDG_CACHE_HOME", "Where the lab keeps kernels (default: ~/.cache).")):
        yield f".TP\n.B {name}\n{_escaped(what)}\n"
    yield from _see_also([f"zreplay-{name}" for name in helps])


def _see_also(names: Sequence[str]) -> Iterator[str]:
    yield ".SH SEE ALSO\n"
    for number, name in enumerate(names):
        yield f".BR {_escaped(name)} (1){',' if number < len(names) - 1 else ''}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages into a directory."""
    own = argparse.ArgumentParser(prog="python -m replay.cli.manpages", description="Write the manual pages.")
    own.add_argument("directory", type=Path, help="where the pages go; made where it is not there")
    directory = own.parse_args(argv).directory
    # A page's lines are folded by man, not by the terminal it is made in.
    os.environ["COLUMNS"] = "80"
    directory.mkdir(parents=True, exist_ok=True)
    made = pages()
    for name, text in made.items():
        (directory / name).write_text(text)
    print(f"{directory}: {len(made)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
