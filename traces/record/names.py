# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recorder calls its things in tracefs, so that two of them can record one run side by side."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import CannotRecord

__all__ = ["DEFAULT", "TracefsNames"]

#: The name of a recorder that is given none.
DEFAULT = "zreplay"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")
#: Groups that the kernel (kernel/trace/trace_probe.h, trace_synth.h) and perf give events whose maker names none:
#: everything in a recorder's group counts as its own and is removed.
_OTHERS = ("eprobes", "fprobes", "kprobes", "probe", "synthetic", "tracepoints", "uprobes")
#: Page contents have a group of their own, as theirs is another instance.
_PAGES = "pages"


class TracefsNames(NamedTuple):
    """One recorder's names: groups of events and instances in tracefs.

    ``name``: what the user calls it; ``group``, ``page_group``: of its events; ``instances``: for events, and for
    contents of pages.
    """

    name: str
    group: str
    page_group: str
    instances: tuple[str, str]

    @classmethod
    def of(cls, name: str = DEFAULT) -> TracefsNames:
        """Return the names of the recorder called ``name``.

        :raises CannotRecord: when that cannot be a group's name, or is one that others use
        """
        if not _NAME.fullmatch(name):
            raise CannotRecord(f"'{name[:40]}' is not a name of an instance",
                               "use a small letter and up to 19 more small letters, digits and underscores")
        # x_pages is where the recorder called x has its page events.
        if name in _OTHERS or name.endswith(f"_{_PAGES}"):
            raise CannotRecord(f"events of others can be in a group called '{name}'", "choose another name")
        return cls(name, name, f"{name}_{_PAGES}", (name, f"{name}-{_PAGES}"))

    @property
    def clean(self) -> str:
        """The command that removes what a killed recorder of this name left."""
        return "zreplay record --clean" if self.name == DEFAULT else f"zreplay record --instance {self.name} --clean"
