# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch series out of a mailbox: its messages, their order, the files that each patch names.

A mailbox comes from other people.  Nothing in it is run here, and every name in it is checked before anything is
written.
"""

from __future__ import annotations

import email
import email.policy
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from traces.errors import BadInput

__all__ = ["Hunk", "Patch", "hunks", "in_order", "read_series", "split_mailbox"]

#: Bytes of a mailbox, unpacked: the longest series of the kernel's lists have some tens of megabytes.
_MOST: Final = 256 << 20
#: What separates messages: "From", a sender, a date.  A line of a commit message may begin with "From" as well.
_SEPARATOR: Final = re.compile(rb"^From \S+ .*\d\d:\d\d:\d\d \d{4}.*$", re.M)
_NUMBER: Final = re.compile(r"\b(\d{1,4})/(\d{1,4})\b")
_TAGS: Final = re.compile(r"\s*\[([^\]]*)\]\s*")
_REPLY: Final = re.compile(r"\s*(re|fwd?|aw|sv|antw)\s*:", re.I)
#: Where a mail's patch begins, as git mailinfo has it.
_BEGIN: Final = re.compile(rb"^(?:---(?: |$)|diff -|Index: )", re.M)
_LINK: Final = re.compile(rb"^Link: +https?://(?:lore\.kernel\.org|lkml\.kernel\.org)/(?:[\w.+-]+/)*([!-~]{1,180}@[\w.-]{1,80})/?\r?$",
                          re.M)
#: A port of a whole series names all of its mails.
_MOST_LINKS: Final = 100
_HUNK: Final = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
#: Kinds of files that a patch may not make: through a symbolic link the next patch would write elsewhere.
_MODES: Final = {b"120000": "a symbolic link", b"160000": "a submodule"}


@dataclass(frozen=True)
class Hunk:
    """A hunk: the file it changes, its number in that file from 1, the line it begins at in the old file, its header,
    and the lines of the old file that it has.
    """

    name: str
    number: int
    line: int
    header: str
    old: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Patch:
    """A patch of a series.

    ``number`` of ``count``, None where its subject has no numbers; ``text`` is what git apply gets, ``sha256`` its
    digest; ``files`` are the names that it touches, below the tree; ``carries`` the Message-IDs of the mails that its
    trailers ``Link: https://lore.kernel.org/LIST/MESSAGE-ID/`` name: a port says so what it carries.
    """

    number: int | None
    count: int | None
    subject: str
    message_id: str
    text: bytes
    sha256: str
    files: tuple[str, ...]
    carries: tuple[str, ...] = ()

    def title(self) -> str:
        """Return how a sentence names it."""
        place = "" if self.number is None else f"{self.number}/{self.count} "
        return f"patch {place}'{self.subject[:120]}'"


def read_series(path: Path) -> list[Patch]:
    """Return the patches of a mailbox (mbox, a single mail, either gzipped) in the order of their numbers.

    The cover letter, and replies, are left out.

    :raises BadInput: when it cannot be read, holds no series, more than one or not all of it, or a patch names a file
        outside of the tree
    """
    data = _read(path)
    patches = [patch for at, message in split_mailbox(data) for patch in _patch(path, at, message)]
    return in_order(path, patches)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST + 1)
            if data.startswith(b"\x1f\x8b"):
                stream.seek(0)
                with gzip.open(stream) as unpacked:
                    data = unpacked.read(_MOST + 1)
    except (OSError, EOFError, zlib.error) as problem:
        what = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise BadInput(path, "", f"cannot be read ({what})", "name a mailbox of patches") from None
    if len(data) > _MOST:
        raise BadInput(path, "", f"is longer than {_MOST >> 20} MiB", "name a mailbox of one series")
    return data


def split_mailbox(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, message) of a mailbox; without a separator it is one message.

    A separator counts at the start and after an empty line.
    """
    # Mail has CR LF where it travels; the kernel's files have none.
    data = data.replace(b"\r\n", b"\n")
    starts = [match for match in _SEPARATOR.finditer(data)
              if not match.start() or data.endswith(b"\n\n", 0, match.start()) or match.start() == 1]
    if not starts or data[:starts[0].start()].strip():
        starts_at = [(0, 0), *((match.start(), match.end() + 1) for match in starts)]
    else:
        starts_at = [(match.start(), match.end() + 1) for match in starts]
    ends = [at for at, _ in starts_at[1:]] + [len(data)]
    for (at, begin), end in zip(starts_at, ends, strict=True):
        if data[begin:end].strip():
            yield at, data[begin:end]


def _patch(path: Path, at: int, data: bytes) -> Iterator[Patch]:
    """Yield the patch of a message; nothing of a reply, a cover letter, or mail without a patch."""
    where = f"message at offset {at}"
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        subject = re.sub(r"\s+", " ", str(message.get("Subject", ""))).strip()
        message_id = re.sub(r"[^!-~]", "", str(message.get("Message-ID", "")))[:200]
        text = _body(message)
    # The library has more ways to fail over broken mail than it documents.
    except Exception as problem:
        raise BadInput(path, where, f"cannot be read as mail ({type(problem).__name__})",
                       "get the series again, as the list has it") from None
    subject = "".join(c if c.isprintable() else "?" for c in subject)
    if _REPLY.match(subject):
        return
    number, count, bare, tagged = _numbers(subject)
    begin = _BEGIN.search(text)
    body = text[begin.start():] if begin else b""
    has_diff = re.search(rb"^(?:diff --git |--- \S)", body, re.M) is not None
    if number == 0 or not (tagged or has_diff):
        return
    if not has_diff:
        raise BadInput(path, where, f"'{subject[:120]}' holds no diff", "get the series again, as the list has it")
    files = tuple(sorted(set(_names(path, where, body))))
    if not files:
        raise BadInput(path, where, f"the diff of '{subject[:120]}' names no file",
                       "get the series again, as the list has it")
    carries = tuple(found.decode() for found in _LINK.findall(text[:begin.start()] if begin else b""))[:_MOST_LINKS]
    yield Patch(number, count, bare or subject, message_id, body, hashlib.sha256(body).hexdigest(), files, carries)


def _body(message: EmailMessage) -> bytes:
    """Return the text of a mail, with whatever it was encoded with taken off, and LF for line ends."""
    parts = []
    for part in message.walk():
        if part.get_content_maintype() == "text" and part.get_content_subtype() != "html":
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                parts.append(payload.replace(b"\r\n", b"\n"))
        elif not message.is_multipart() and not part.is_multipart():
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                parts.append(payload)
    return b"\n".join(parts)


def _numbers(subject: str) -> tuple[int | None, int | None, str, bool]:
    """Return i and m of ``[PATCH i/m]``, the subject without its tags, and whether they call it a patch."""
    number = count = None
    tagged = False
    rest = subject
    while (match := _TAGS.match(rest)) is not None:
        words = match[1].upper().split()
        tagged = tagged or any(word in ("PATCH", "RFC") for word in words) or "PATCH" in match[1].upper()
        found = _NUMBER.search(match[1])
        if found is not None and number is None:
            number, count = int(found[1]), int(found[2])
        rest = rest[match.end():]
    return number, count, rest.strip(), tagged or number is not None


def in_order(path: Path, patches: Iterable[Patch]) -> list[Patch]:
    """Return patches by their numbers; those of mail without numbers in the mailbox's order.

    :raises BadInput: when they are not one whole series
    """
    patches = list(patches)
    if not patches:
        raise BadInput(path, "", "holds no patch", "name a mailbox of [PATCH i/m] mails with diffs in them")
    if all(patch.number is None for patch in patches):
        return patches
    bare = next((patch for patch in patches if patch.number is None), None)
    if bare is not None:
        raise BadInput(path, "", f"holds a numbered series and '{bare.subject[:80]}' without a number",
                       "leave one of them out: their order is not known")
    by_number: dict[int, Patch] = {}
    for patch in patches:
        assert patch.number is not None
        other = by_number.setdefault(patch.number, patch)
        if other is not patch and (other.sha256 != patch.sha256 or other.subject != patch.subject):
            raise BadInput(path, "", f"holds two patches {patch.number}/{patch.count}: '{other.subject[:80]}' and "
                           f"'{patch.subject[:80]}'", "leave the mails of the other series or posting out")
    counts = sorted({patch.count or 0 for patch in patches})
    if len(counts) > 1:
        raise BadInput(path, "", f"holds patches of {counts[0]} and of {counts[-1]}", "leave the other series out")
    missing = [number for number in range(1, counts[0] + 1) if number not in by_number]
    beyond = [number for number in by_number if number > counts[0]]
    if missing or beyond:
        numbers = ", ".join(str(number) for number in (missing or beyond)[:8])
        what = f"lacks patch {numbers} of {counts[0]}" if missing else f"has a patch {numbers} of {counts[0]}"
        raise BadInput(path, "", what, "get all mails of the series")
    return [by_number[number] for number in sorted(by_number)]


# The text of a patch


def _lines(text: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield each line of a patch outside of hunks, and whether it is in a file's header or a hunk's."""
    return ((line, is_hunk) for _, line, is_hunk in _numbered(text))


def _numbered(text: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """As :func:`_lines`, with each line's number in the patch, from 0."""
    old = new = 0
    for at, line in enumerate(text.split(b"\n")):
        if old > 0 or new > 0:
            kind = line[:1]
            if kind in (b" ", b""):
                old, new = old - 1, new - 1
            elif kind == b"-":
                old -= 1
            elif kind == b"+":
                new -= 1
            elif kind != b"\\":
                # Not what its header said; git apply will say so.
                old = new = 0
            continue
        match = _HUNK.match(line)
        if match is not None:
            old = int(match[2]) if match[2] is not None else 1
            new = int(match[4]) if match[4] is not None else 1
        yield at, line, match is not None


def _names(path: Path, where: str, text: bytes) -> Iterator[str]:
    """Yield the names of a patch's files.

    :raises BadInput: when one is outside of the tree, or becomes something other than a file
    """
    before, in_header = b"", False
    for line, is_hunk in _lines(text):
        in_header = (in_header or line.startswith(b"diff --git ")) and not is_hunk
        # Only both together belong to a file; the text above a diff is prose.
        if before.startswith(b"--- ") and line.startswith(b"+++ "):
            for head in (before, line):
                name = head[4:].split(b"\t")[0].rstrip()
                if name != b"/dev/null":
                    yield _checked(path, where, name, 1)
        before = line
        # git still takes the names that renames had before 2005.
        for head in (b"rename from ", b"rename to ", b"rename old ", b"rename new ", b"copy from ", b"copy to "):
            if in_header and line.startswith(head):
                yield _checked(path, where, line[len(head):].rstrip(), 0)
        if line.startswith(b"diff --git "):
            # Of a file that is empty, or only changes its mode, no other line has the name.
            both = line[len(b"diff --git "):].rstrip()
            first, second = both[:len(both) // 2], both[len(both) // 2 + 1:]
            if first.partition(b"/")[2] == second.partition(b"/")[2]:
                yield _checked(path, where, first, 1)
            else:
                for name in both.split(b" "):
                    yield _checked(path, where, name, 1)
        mode = re.match(rb"(?:new file mode|new mode|index [0-9a-f]+\.\.[0-9a-f]+) (\d{6})\s*$", line)
        if mode is not None and mode[1] in _MODES:
            raise BadInput(path, where, f"its patch makes {_MODES[mode[1]]}, which is not taken",
                           "apply it by hand and build the kernel yourself")


def _checked(path: Path, where: str, name: bytes, strip: int) -> str:
    """Return a name below the tree, without what stands before its first slash where ``strip`` says so."""
    shown = re.sub(r"[^ -~]", "?", name[:120].decode("ascii", "replace"))
    if strip and not name.startswith(b"/"):
        name = name.partition(b"/")[2]
    parts = name.split(b"/")
    if not name or name.startswith(b"/") or any(part in (b"", b".", b"..") for part in parts) \
            or any(part.lower() == b".git" for part in parts):
        raise BadInput(path, where, f"its patch names '{shown}', which is not a file of the kernel's tree",
                       "get the series again, as the list has it (git format-patch, with its a/ and b/)")
    if not re.fullmatch(rb"[A-Za-z0-9 ._+@,=~#/-]+", name) or len(name) > 1024:
        raise BadInput(path, where, f"its patch names '{shown}', and no file of the kernel has such a name",
                       "get the series again, as the list has it")
    return name.decode("ascii")


def hunks(patch: Patch) -> list[Hunk]:
    """Return the hunks of a patch, in its order; ``name`` is that of the old file, of a new one its own."""
    found: list[Hunk] = []
    name = b""
    number = 0
    lines = patch.text.split(b"\n")
    for at, line, is_hunk in _numbered(patch.text):
        if line.startswith(b"--- "):
            name, number = line[4:].split(b"\t")[0].rstrip().partition(b"/")[2], 0
        elif line.startswith(b"+++ ") and name == b"dev/null":
            name = line[4:].split(b"\t")[0].rstrip().partition(b"/")[2]
        elif is_hunk:
            number += 1
            match = _HUNK.match(line)
            assert match is not None
            found.append(Hunk(name.decode("utf-8", "replace"), number, int(match[1]),
                              line[:100].decode("utf-8", "replace"), _old_lines(lines, at, match)))
    return found


def _old_lines(patch: Sequence[bytes], at: int, header: re.Match[bytes]) -> tuple[bytes, ...]:
    """Return the old file's lines of the hunk whose header is line ``at`` of a patch, from 0."""
    count = int(header[2]) if header[2] is not None else 1
    lines: list[bytes] = []
    while len(lines) < count and at + 1 < len(patch):
        at += 1
        line = patch[at]
        if line[:1] in (b" ", b"-", b""):
            lines.append(line[1:])
        elif line[:1] not in (b"+", b"\\"):
            break
    return tuple(lines)
