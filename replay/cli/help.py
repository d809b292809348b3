# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers of all verbs: help that fits the terminal, usage that fits a line or two, examples at the end."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from replay.cli.escaping import unescaped
from replay.cli.verbs import EXAMPLES, GROUPS
from traces.suggestion import meant

__all__ = ["Formatter", "Parser", "TopParser", "offer", "opening"]

#: Columns of help on a wide terminal.
_WIDEST: Final = 80
#: Options of which a usage line names those that must be given alone.
_MANY: Final = 4


def _columns() -> int:
    # COLUMNS first, then the terminal; 80 where there is neither.
    return max(min(shutil.get_terminal_size().columns, _WIDEST), 20)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and epilogues as they are, and folds those that do not fit."""

    def __init__(self, prog: str, **keys: Any) -> None:
        super().__init__(prog, **{**keys, "width": _columns() - 2})

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options, whose heading may be a sentence."""
        super().start_section(heading and "\n".join(_folded(heading, self._width - 1)))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(line for given in text.splitlines() for line in _folded(indent + given, self._width))

    def _format_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None) -> str:
        formatted = super()._format_usage(usage, actions, groups, prefix)
        # Python 3.14 colours it on a terminal: what is coloured has no length to fold by.
        if "\033" in formatted:
            return formatted
        return "\n".join(line for given in formatted.splitlines() for line in _folded(given, self._width)) + "\n\n"


def _folded(line: str, width: int) -> list[str]:
    """Return a line in lines of a width: commands are continued as a shell reads them, others hang."""
    if len(line) <= width:
        return [line]
    at = " " * (len(line) - len(line.lstrip()))
    if line.lstrip().startswith("zreplay "):
        lines = textwrap.wrap(line, width - 2, subsequent_indent=at + "    ", break_long_words=False,
                              break_on_hyphens=False)
        return [f"{each} \\" for each in lines[:-1]] + lines[-1:]
    # What is set in columns hangs below the second.
    column = re.match(r"\s*\S+(?: \S+)*?  +", line)
    hang = column.end() if column is not None and column.end() < width // 2 else len(at) + 2 * bool(at)
    return textwrap.wrap(line, width, subsequent_indent=" " * hang, break_on_hyphens=False, drop_whitespace=True)


#: Makes the parser of the whole command, with every verb loaded: called after a mistake.
_WHOLE: Final[list[Callable[[], argparse.ArgumentParser]]] = []


def offer(whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Take what makes the whole command's parser, so that a mistake can be answered with a part of another verb."""
    _WHOLE[:] = [whole]


class Parser(argparse.ArgumentParser):
    """A parser whose help fits the terminal, whatever its verb asked for."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        # Later than the constructor: what adds a verb's options may ask for a formatter of its own.
        self.formatter_class = Formatter
        return super()._get_formatter()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Offer the choice that is most like what was given."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = ""
            if isinstance(action, argparse._SubParsersAction) and _WHOLE:
                hint = _elsewhere(str(value), _WHOLE[0]())
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint or meant(str(value), known)} (choose "
                                         f"from {', '.join(known)})")

    def options(self) -> set[str]:
        """Return all options, those of parts of the verb too."""
        parts = [part for action in self._actions if isinstance(action, argparse._SubParsersAction)
                 for part in action.choices.values()]
        return set(self._option_string_actions).union(*(part.options() for part in parts))

    def _print_help(self, text: str, stream: Any) -> None:
        # Of the parser's own words nothing is escaped: Python 3.14 colours them.
        unescaped(stream).write(text)

    def print_help(self, file: Any = None) -> None:
        """Print the help, by default to stdout."""
        self._print_help(self.format_help(), file or sys.stdout)

    def print_usage(self, file: Any = None) -> None:
        """Print the usage, by default to stdout."""
        self._print_help(self.format_usage(), file or sys.stdout)

    def _usage_actions(self) -> Iterable[argparse.Action]:
        """Return what the usage names: of many options those that must be given alone, as all are listed below it."""
        options = [action for action in self._actions if action.option_strings]
        # A list of choices would fill the usage, too.
        if len(options) <= _MANY and sum(len(",".join(map(str, action.choices or ()))) for action in options) <= 40:
            return self._actions
        some = argparse.Action([], dest="options", metavar="[options]")
        return [*(action for action in options if action.required), some,
                *(action for action in self._actions if not action.option_strings)]

    def format_usage(self) -> str:
        """Return the usage alone, as errors begin with."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._usage_actions(), self._mutually_exclusive_groups)
        return formatter.format_help()

    def format_help(self) -> str:
        """Return usage, description, options and examples."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._usage_actions(), self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        if "zreplay " not in (self.epilog or ""):
            formatter.add_text(examples(EXAMPLES.get(self.prog, ())))
        return formatter.format_help()


def _elsewhere(word: str, whole: argparse.ArgumentParser) -> str:
    """Return a clause that offers the commands that end with a word (``dev bench`` for ``bench``), or ``""``."""
    def commands(of: argparse.ArgumentParser) -> Iterator[str]:
        for action in of._actions:
            if isinstance(action, argparse._SubParsersAction):
                for part in action.choices.values():
                    yield part.prog.partition(" ")[2]
                    yield from commands(part)

    found = [command for command in commands(whole) if command.split()[-1] == word]
    return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""


class TopParser(Parser):
    """The parser of the command itself: its help lists the verbs in groups."""

    def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                   namespace: Any = None) -> Any:
        """Parse all words; report a word that no option takes, with the verb's usage and the option that may be meant.

        A verb says with the default ``stray`` what words mean that are no options and too many.
        """
        found, stray = self.parse_known_args(args, namespace)
        if not stray:
            return found
        verbs = next(action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        verb = verbs.choices.get(str(getattr(found, "verb", "")), self)
        words = " ".join(word + meant(word.partition("=")[0], verb.options()) if word.startswith("-") else word
                         for word in stray)
        hint = getattr(found, "stray", None)
        if hint and not any(word.startswith("-") for word in stray):
            return verb.error(f"{words}: {hint}")
        return verb.error(f"unrecognized arguments: {words}")

    def format_help(self) -> str:
        """Return the help: every verb with its line, in groups."""
        width = _columns() - 2
        lines = [f"usage: {self.prog} VERB ...", "", *textwrap.wrap(self.description or "", width)]
        for group, verbs in GROUPS.items():
            lines += ["", f"{group}:"]
            for name, verb in verbs.items():
                lines += textwrap.wrap(f"    {name:<10} {verb.help}", width, subsequent_indent=" " * 15)
        lines += ["", "options:"]
        for option, what in (("-h, --help", "show this, or of a verb its own"),
                             ("--version", "show versions of everything that computes")):
            lines += textwrap.wrap(f"    {option:<10} {what}", width, subsequent_indent=" " * 15)
        lines += ["", *(line for given in (self.epilog or "").splitlines() for line in _folded(given, width))]
        return "\n".join(lines) + "\n"


def examples(commands: Iterable[str]) -> str | None:
    """Return an epilogue of commands, None where there are none."""
    lines = [f"  {command}" for command in commands]
    return "\n".join(["example:" if len(lines) == 1 else "examples:", *lines]) if lines else None


def opening() -> str:
    """Return what the command alone prints: a screen that leads to the verbs."""
    width = _columns() - 2
    lines = textwrap.wrap("zreplay: does this kernel do what this patch revision says it does?", width)
    lines.append("")
    for group, verbs in GROUPS.items():
        lines += textwrap.wrap(f"  {group + ':':<16} {', '.join(verbs)}", width, subsequent_indent=" " * 19)
    lines.append("")
    for command, what in (("zreplay doctor", "what this box can do"),
                          ("zreplay info", "recordings of real kernels that ship with it"),
                          ("zreplay replay RECORDING", "check one: PASS, or the first divergence"),
                          ("zreplay lab run --kernel 7.2 -o run.zr", "record a kernel in QEMU"),
                          ("zreplay VERB --help", "options and examples of a verb")):
        line = f"  {command:<39} {what}"
        lines += [line] if len(line) <= width else [*_folded(f"  {command}", width), *textwrap.wrap(
            what, width, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines) + "\n"
