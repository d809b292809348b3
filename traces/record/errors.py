# SPDX-License-Identifier: GPL-2.0-or-later
"""The one exception of the recorder: why it cannot record, in one sentence."""

from __future__ import annotations

import re

__all__ = ["CannotRecord"]


class CannotRecord(Exception):
    """Recording is not possible here; the message is one sentence that says what to do.

    :param what: what is in the way, without a final stop
    :param todo: what the user can do next, without a final stop
    """

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", f"{what.strip()}; {todo}."))
