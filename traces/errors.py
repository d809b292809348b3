# SPDX-License-Identifier: GPL-2.0-or-later
"""The one exception for input that cannot be used.

Every reader in :mod:`traces` raises :class:`BadInput` and nothing else for a defect of its input, so that
the command line can print one sentence and leave with exit status 2.
"""

from __future__ import annotations

import os
import re

from traces.printable import escaped

__all__ = ["BadInput"]


class BadInput(ValueError):
    """Input that cannot be read, said in one sentence.

    :param path: the file or directory at fault
    :param where: the place in it (``"offset 4096"``, ``"event 17"``, ``"manifest.json"``), or ``""``
    :param what: what is wrong, without a final stop
    :param todo: what the user can do next, without a final stop
    """

    def __init__(self, path: str | os.PathLike[str], where: str, what: str, todo: str) -> None:
        self.path = os.fspath(path)
        self.where = where
        self.what = what
        self.todo = todo
        place = f"{self.path}, {where}" if where else self.path
        # Libraries put line breaks into their messages, and names of files may hold anything a terminal obeys.
        said = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", f"{place}: {what.strip()}; {todo}.")
        super().__init__(escaped(said))
