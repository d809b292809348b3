# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb: its group (what a user wants), the module that does it, one line on it, and examples for its help.

Lists and help of the whole command come from here, so that they import no verb; a verb's module is imported when it
is asked for.  Its own ``add_parser`` repeats the line: the tests compare both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["EXAMPLES", "GROUPS", "VERBS", "Verb"]


class Verb(NamedTuple):
    """``module``: below replay.cli, with an ``add_parser(verbs)``; ``help``: one line; ``examples``: commands."""

    module: str
    help: str
    examples: tuple[str, ...]


GROUPS: Final[Mapping[str, Mapping[str, Verb]]] = {
    "record": {
        "record": Verb("record", "record what zswap and zsmalloc do on this kernel (root)", (
            "zreplay record --plan", "zreplay record -o run.zr -- make -j8")),
        "workload": Verb("workload", "make zswap do chosen things with known pages (root, on a test box)", (
            "zreplay record -o run.zr --pages full -- zreplay workload base --pages 4096",)),
        "import": Verb("import_", "make a recording of a raw capture, trace.dat or ftrace text", (
            "zreplay import captures/ -o run.zr", "zreplay import trace.dat --kernel 7.2.13 -o run.zr")),
        "cut": Verb("cut", "cut a stretch out of a recording, with the state it needs", (
            "zreplay cut run.zr --from 1000 --to 5000 -o part.zr",)),
        "scrub": Verb("scrub", "replace page bytes by synthetic pages of the same lengths", (
            "zreplay scrub run.zr -o clean.zr",)),
    },
    "understand": {
        "info": Verb("info", "what a recording holds", ("zreplay info run.zr",)),
        "show": Verb("show", "events of a recording, filtered", (
            "zreplay show run.zr --swp 0x200", "zreplay show run.zr --op zswap_load --limit 20")),
        "export": Verb("export", "a recording for a trace viewer (Perfetto)", (
            "zreplay export run.zr -o run.pftrace",)),
        "vmcore": Verb("vmcore", "list and check zswap in an ELF vmcore of a dead box", (
            "zreplay vmcore vmcore --vmlinux vmlinux",)),
    },
    "check": {
        "replay": Verb("replay_", "replay a recording through a revision and check every effect", (
            "zreplay replay run.zr", "zreplay replay *.zr -j 4 --table verdicts.json",
            "zreplay replay run.zr --revision ./v15.py:V15 --keep-going")),
        "report": Verb("report", "a result as an HTML page: checks, first divergence, pictures", (
            "zreplay report run.zr -o run.html",
            "zreplay report run.zr --revision mainline-7.2 --revision v14 -o v14.html")),
    },
    "compare": {
        "regress": Verb("regress", "is a patched kernel worse than its base, and where do two revisions differ", (
            "zreplay regress --base old1.zr old2.zr old3.zr --patched new1.zr new2.zr new3.zr",
            "zreplay regress run.zr --revision mainline-7.2 --revision v14")),
        "bisect": Verb("revisions", "name the step of a series that brought a difference", (
            "zreplay bisect run.zr --series v14",)),
        "whatif": Verb("whatif", "what batching through IAA would gain, by a timing model", (
            "zreplay whatif --batch 4 --engines 2 --devices 4 --folio 2M",)),
    },
    "run a lab": {
        "lab": Verb("lab", "boot a kernel in QEMU and record a workload in it", ()),
    },
    "set up": {
        "doctor": Verb("doctor", "what this box can do, and what one command would add", (
            "zreplay doctor", "zreplay doctor --for 3600")),
        "warmup": Verb("warmup", "compile for this machine beforehand (about 30 s, once)", ("zreplay warmup",)),
        "completion": Verb("completion", "a script that completes this command in a shell", (
            "zreplay completion bash > ~/.local/share/bash-completion/completions/zreplay",)),
    },
    "develop": {
        "dev": Verb("dev", "measure and test zreplay itself: bench, compare, shrink, overhead, kills, backends", ()),
    },
}

VERBS: Final[Mapping[str, Verb]] = {name: verb for group in GROUPS.values() for name, verb in group.items()}

#: Examples by the words of a command, where its parser has no epilogue of its own.
EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"zreplay {name}": verb.examples for name, verb in VERBS.items()},
    "zreplay dev bench": ("zreplay dev bench --json bench.json",),
    "zreplay dev compare": ("zreplay dev compare tracefs.zr bcc.zr",),
    "zreplay lab kernels": ("zreplay lab kernels", "zreplay lab run --kernel 7.2 -o run.zr"),
}
