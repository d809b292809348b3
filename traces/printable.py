# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that came from a file, as a terminal may show it.

Names of tasks, releases, markers and bad lines can hold any character.  A terminal obeys escape sequences, and some
characters move the cursor or reverse the direction of text: all these are shown as Python's escapes.  The command's
streams (:mod:`replay.cli.escaping`) do so with all that is printed; a manifest's texts have no line breaks either, so
that none can look like a line of the command's own.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["escaped", "escaped_texts"]

#: C0 and C1 controls but tab and line feed, what changes the direction or ends a line, and halves of surrogate pairs.
_UNSHOWN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
                             "\ufeff\ud800-\udfff]")


def escaped(text: str, lines: bool = True) -> str:
    """Return a text in which characters that a terminal would obey are shown as ``\\x1b`` or ``\\u202e``.

    :param lines: keep line feeds; False escapes these too
    """
    text = _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return text if lines else text.replace("\n", "\\n")


def escaped_texts(value: Any) -> Any:
    """Return a JSON value whose texts, and the keys of its objects, are of one line that can be shown."""
    if isinstance(value, str):
        return escaped(value, lines=False)
    if isinstance(value, list):
        return [escaped_texts(item) for item in value]
    if isinstance(value, dict):
        return {escaped(key, lines=False): escaped_texts(item) for key, item in value.items()}
    return value
