# SPDX-License-Identifier: GPL-2.0-or-later
"""Regressions as a check of b4's reviews: a patch mail comes in, JSON goes out.

b4 (docs/maintainer/review.rst, "CI check integration"; src/b4/review/checks.py) hands a check command one message on
standard input and wants an array of objects on standard output: ``tool``, ``status``, ``summary``, ``url``,
``details``, all text.  It knows the statuses pass, warn and fail, takes any other for fail, and an empty array for
nothing to report.  The protocol has no version of its own: ``SCHEMA_VERSION`` there is that of b4's cache.

The mail only names a series.  Nothing in it is run, applied or used as a path: which recordings are compared is said
by the user's own configuration.
"""

from __future__ import annotations

import email.errors
import email.header
import email.message
import email.parser
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from replay.regress.compare import VERDICTS, Regression
from replay.regress.table import mail, plain
from traces.errors import BadInput

__all__ = ["MAX_MAIL", "Config", "SeriesMail", "Series", "answer", "check", "default_config", "read_config",
           "read_mail"]

#: Bytes of a mail, and of a configuration, that are read; list servers take far less.
MAX_MAIL: Final = 4 << 20
_MAX_CONFIG: Final = 1 << 20
#: The parser takes each line apart at all the boundaries it is inside: no mail of a patch has this many.
_MAX_BOUNDARIES: Final = 20
_MAX_SUBJECT, _MAX_REFERENCES, _MAX_IDS = 2000, 1 << 16, 1000
_TOOL: Final = "zreplay-regress"
_STATUS: Final = {"worse": "fail", "not worse": "pass", "undecided": "warn"}
_MESSAGE_ID: Final = re.compile(r"<([^<>\s]{1,998})>")
_KEYS: Final = {"name": str, "subject": str, "change-id": str, "message-id": (str, list), "revision": int,
                "base": list, "patched": list, "margin": (int, float), "url": str}
_MEND: Final = "mend the configuration; docs/regress.md has an example"

Compare = Callable[[list[str], list[str], float], Regression]


@dataclass(frozen=True)
class SeriesMail:
    """What a mail says of its series.

    ``title``: its subject without tags; ``patch``: it is a patch or a cover letter; ``revision``: of ``vN``, 1 where
    the subject has none; ``place``: (number in the series, how many), None for a single patch; ``ids``: its message
    id and those it refers to, nearest first; ``change_id``: of b4's cover letters, or "".
    """

    title: str
    patch: bool
    revision: int
    place: tuple[int, int] | None
    ids: tuple[str, ...]
    change_id: str


@dataclass(frozen=True)
class Series:
    """A configured series: how its mails are known, and which recordings are compared.

    ``subject``: searched in the title, case ignored; ``margin``: as a share, None for the default.
    """

    name: str
    subject: re.Pattern[str] | None
    change_id: str
    message_ids: frozenset[str]
    revision: int | None
    base: list[str]
    patched: list[str]
    margin: float | None
    url: str

    def knows(self, message: SeriesMail) -> tuple[bool, bool, bool]:
        """Return by what a mail is one of the series: a message id, its change id, its subject."""
        if self.revision is not None and self.revision != message.revision:
            return False, False, False
        return (not self.message_ids.isdisjoint(message.ids),
                bool(self.change_id) and self.change_id == message.change_id,
                self.subject is not None and self.subject.search(message.title) is not None)


@dataclass(frozen=True)
class Config:
    """The configuration: ``path`` as asked for, ``series``, and whether a mail of none of them gets no answer."""

    path: Path
    series: tuple[Series, ...] = ()
    silent: bool = False


# ---- the mail --------------------------------------------------------------------------------------------


def read_mail(data: bytes) -> SeriesMail:
    """Return what a mail says of its series; of a mail that is none, nothing."""
    try:
        nested = data.lower().count(b"boundary=") > _MAX_BOUNDARIES
        parser = email.parser.BytesHeaderParser() if nested else email.parser.BytesParser()
        message = parser.parsebytes(data)
        subject = _header(message, "Subject", _MAX_SUBJECT)
        ids: list[str] = []
        for name in ("Message-Id", "In-Reply-To", "References"):
            found = _MESSAGE_ID.findall(_header(message, name, _MAX_REFERENCES))
            ids += reversed(found) if name == "References" else found
        change_id = _header(message, "X-Change-ID", _MAX_SUBJECT).strip() or _change_id(message)
    except Exception:
        # The parser may raise anything on input that it was not tested with; the mail comes from outside.
        return SeriesMail("", False, 1, None, (), "")
    tags, title = _tags(subject)
    words = tags.split()
    revision = next((int(word[1:]) for word in words if re.fullmatch(r"v\d{1,4}", word, re.I)), 1)
    place = next(((int(a), int(b)) for word in words for a, slash, b in [word.partition("/")]
                  if slash and re.fullmatch(r"\d{1,4}", a) and re.fullmatch(r"\d{1,4}", b)), None)
    return SeriesMail(title, any(word.upper() == "PATCH" for word in words), revision, place,
                      tuple(dict.fromkeys(ids))[:_MAX_IDS], change_id)


def _header(message: email.message.Message, name: str, most: int) -> str:
    """Return a header in clear, at most so much of it; "" where there is none."""
    raw = message.get(name)
    if raw is None:
        return ""
    text = str(raw)[:most]
    try:
        parts = [part if isinstance(part, str) else part.decode(charset or "ascii", "replace")
                 for part, charset in email.header.decode_header(text)]
    except (LookupError, ValueError, email.errors.MessageError):
        # An unknown encoding: left as it is.
        parts = [text]
    return " ".join("".join(parts).split())


def _tags(subject: str) -> tuple[str, str]:
    """Return a subject's tags in brackets, as one text, and what follows them; replies have none."""
    found = re.match(r"((?:\s*\[[^\[\]]{0,200}\])*)\s*(.*)", subject, re.S)
    return (re.sub(r"[\[\]]", " ", found[1]), found[2]) if found else ("", subject)


def _change_id(message: email.message.Message) -> str:
    """Return the change id that b4 writes at the end of cover letters, or ""."""
    for part in message.walk():
        if part.get_content_maintype() != "text":
            continue
        data = part.get_payload(decode=True)
        if isinstance(data, bytes):
            found = re.search(rb"^change-id:[ \t]*([!-~]{1,200})[ \t]*\r?$", data, re.M | re.I)
            if found:
                return found[1].decode("ascii")
    return ""


# ---- the configuration -----------------------------------------------------------------------------------


def default_config(environ: Mapping[str, str]) -> Path:
    """Return where the configuration is by default (XDG base directories: a relative one does not count)."""
    home = environ.get("XDG_CONFIG_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~/.config")) / "zreplay" / "series.toml"


def read_config(path: Path, needed: bool) -> Config:
    """Read the configuration.

    :param path: the file; recordings named in it are looked for from its directory
    :param needed: False where a file that is not there is one that knows no series
    :raises BadInput: when it is missing, unreadable or says something that makes no sense
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError:
        if needed:
            raise BadInput(path, "", "does not exist", "give --config FILE; docs/regress.md has an example") from None
        return Config(path)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})", "give --config FILE") from None
    if len(data) > _MAX_CONFIG:
        raise BadInput(path, "", "is too large for a configuration", _MEND)
    try:
        loaded = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as problem:
        raise BadInput(path, "", f"is not readable TOML ({problem})", _MEND) from None
    unknown = loaded.get("unknown", "warn")
    tables = loaded.get("series", [])
    if unknown not in ("warn", "none"):
        raise BadInput(path, "key 'unknown'", "is neither \"warn\" nor \"none\"", _MEND)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput(path, "key 'series'", "is not a list of tables: write [[series]]", _MEND)
    for key in loaded.keys() - {"unknown", "series"}:
        raise BadInput(path, f"key '{key}'", "is not known", _MEND)
    return Config(path, tuple(_series(path, number, table) for number, table in enumerate(tables, 1)),
                  unknown == "none")


def _series(path: Path, number: int, table: dict[str, Any]) -> Series:
    where = f"series {number}"
    for key, value in table.items():
        if key not in _KEYS:
            raise BadInput(path, where, f"key '{key}' is not known", _MEND)
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):  # type: ignore[arg-type]
            raise BadInput(path, where, f"key '{key}' is of the wrong type", _MEND)
    ids = table.get("message-id", [])
    ids = [ids] if isinstance(ids, str) else ids
    for key, texts in (("message-id", ids), ("base", table.get("base", [])), ("patched", table.get("patched", []))):
        if not all(isinstance(text, str) and text for text in texts):
            raise BadInput(path, where, f"key '{key}' is not a list of texts", _MEND)
    if not table.get("base") or not table.get("patched"):
        raise BadInput(path, where, "names no recordings: it needs 'base' and 'patched'", _MEND)
    if not table.get("subject") and not table.get("change-id") and not ids:
        raise BadInput(path, where, "has nothing that identifies its mails: 'subject', 'change-id' or 'message-id'",
                       _MEND)
    try:
        subject = re.compile(table["subject"], re.I) if table.get("subject") else None
    except (re.error, RecursionError) as problem:
        raise BadInput(path, where, f"key 'subject' is not a regular expression ({problem})", _MEND) from None
    margin = table.get("margin")
    if margin is not None and not 0 <= margin <= 100:
        raise BadInput(path, where, "key 'margin' is not a number of percent from 0 to 100", _MEND)
    base, patched = ([os.path.join(path.parent, os.path.expanduser(name)) for name in table[side]]
                     for side in ("base", "patched"))
    return Series(table.get("name", f"series {number} of the configuration"), subject, table.get("change-id", ""),
                  frozenset(text.strip().strip("<>") for text in ids), table.get("revision"), base, patched,
                  None if margin is None else margin / 100, table.get("url", ""))


# ---- the answer ------------------------------------------------------------------------------------------


def check(status: str, summary: str, url: str = "", details: str = "") -> dict[str, str]:
    """Return one of b4's check results."""
    return {"tool": _TOOL, "status": status, "summary": plain(summary), "url": url, "details": details}


def answer(stream: BinaryIO, config: Config, margin: float, compare: Compare) -> tuple[list[dict[str, str]], int]:
    """Read a mail and return what b4 reports, and the exit status.

    :param stream: the mail; no more than :data:`MAX_MAIL` bytes of it are read
    :param margin: for series that have none of their own
    :param compare: compares recordings with each other: base, patched, margin
    :raises BadInput: when a recording cannot be read
    """
    data = stream.read(MAX_MAIL + 1)
    if len(data) > MAX_MAIL:
        return [check("warn", f"nothing was compared: the mail is larger than {MAX_MAIL >> 20} MiB")], 3
    message = read_mail(data)
    series = find(config.series, message) if message.patch else None
    if series is None:
        why = (f"no series of {config.path} is this one: '{message.title}'" if message.patch else
               "the mail is not a patch")
        return [] if config.silent else [check("warn", f"nothing was compared: {why}")], 3
    result = compare(series.base, series.patched, series.margin if series.margin is not None else margin)
    return [check(_STATUS[result.verdict], summary(series, result), series.url, "\n".join(mail(result)))], \
        result.exit_status


def find(series: Sequence[Series], message: SeriesMail) -> Series | None:
    """Return the series of a mail: known by message id before change id before subject, then the first."""
    for by in range(3):
        for one in series:
            if one.knows(message)[by]:
                return one
    return None


def summary(series: Series, result: Regression) -> str:
    """Return a result in one line."""
    counts = ", ".join(f"{len(result.of(verdict))} {verdict}" for verdict in VERDICTS)
    worst = [one.measure.doc for one in result.of("worse")]
    named = f" ({'; '.join(worst[:3])}{'; ...' if len(worst) > 3 else ''})" if worst else ""
    if result.verdict == "undecided":
        named = f" ({result.why})"
    return (f"{series.name}: {result.verdict}{named}; {counts}; {result.patched[0].kernel} against "
            f"{result.base[0].kernel}, {len(result.patched)} and {len(result.base)} runs")
