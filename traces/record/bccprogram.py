# SPDX-License-Identifier: GPL-2.0-or-later
"""The BPF program of a probe plan, as C text for BCC, and the records it writes.

The text needs no kernel header: arguments are taken from ``struct pt_regs``, members from addresses and offsets
that the plan knows.  What BCC itself includes is in :func:`header_files`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .names import DEFAULT
from .plan import Planned
from .release import release_line

__all__ = ["CALLS", "EVENTS", "HEAD", "KINDS", "PAGES", "PAGE_HALF", "PAGE_HEAD", "Definition", "BodyField", "Hook",
           "Program", "definitions_of", "event_format", "half_formats", "header_event", "header_files", "header_page",
           "parse", "program", "write_headers"]

#: struct layout of what precedes an event's body: when its handler began and when it got room (ns), the CPU, and how
#: many records of that CPU found no room before this one, modulo 2^32.
HEAD = "<QQII"
#: The same of a page: when (ns), CPU, task, number of the page event, address; then its bytes.
PAGE_HEAD = "<QIiQQ"
PAGE_HALF = 2048
#: Kinds of losses: records of events without room, pages without room, calls whose arguments were not kept.
EVENTS, PAGES, CALLS = 0, 1, 2
KINDS = 3
#: BPF_F_MMAPABLE (include/uapi/linux/bpf.h, from 5.5 on).
_MMAPABLE = 1024
#: First event id in formats/; smaller ids are those that the kernel has built in.
_FIRST_ID = 2000
_FIRST_PAGE_ID = 3000
_COMMON = 8
_LRU_EVENTS = ("lru_add", "lru_add_ret", "lru_del")
_REGISTERS = ("di", "si", "dx", "cx", "r8", "r9")
_FIELD = re.compile(r"(\w+)=(\S+):(?:([xus])(8|16|32|64)|b(\d+)@(\d+)/(32|64)|string)")
#: A bit field's expression: that of its word, how many bits, and from which on.
_BITS = re.compile(r"(.+)#(\d+)@(\d+)")
#: How names of zswap's parameters begin.
_OURS = b"zswap."
#: Bytes that are kept of a text, its end included.
_TEXT = 64
_DEREFERENCE = re.compile(r"\+(\d+)\((.+)\)")
#: Calls under way at once whose arguments are kept for their return.
_OPEN_CALLS = 16384


class BodyField(NamedTuple):
    """A field of an event: ``expression`` as in dynamic_events, ``offset`` and ``size`` in the body, bytes; a text is
    longer than any number."""

    name: str
    expression: str
    size: int
    signed: bool
    offset: int


class Definition(NamedTuple):
    """An event: what it hooks and what it fetches; ``size`` is that of its body, bytes."""

    event: str
    function: str
    at_return: bool
    fields: tuple[BodyField, ...]
    size: int


class Hook(NamedTuple):
    """A place that is hooked: ``name`` of the probe in tracefs, ``handler`` in the program, line that defines it."""

    name: str
    handler: str
    line: str


class Program(NamedTuple):
    """C text, its hooks (entries before returns), the events by number, and the page events by number.

    ``pairs``: return event -> name of the hook that keeps its arguments; ``cpus``, ``per_cpu``: how many CPUs have
    counters, and how many each; see :func:`program`.
    """

    text: str
    hooks: tuple[Hook, ...]
    events: tuple[str, ...]
    pages: tuple[str, ...]
    pairs: dict[str, str]
    cpus: int
    per_cpu: int


def parse(line: str) -> Definition:
    """Read a kprobe event's definition, as the plan has it.

    :raises ValueError: for what this back end cannot fetch
    """
    words = line.split()
    head = re.fullmatch(r"(p|r\d*):\w+/(\w+)", words[0])
    if head is None or len(words) < 2:
        raise ValueError(f"'{line}' defines no kprobe event")
    fields = []
    at = _COMMON
    for word in words[2:]:
        match = _FIELD.fullmatch(word)
        if match is None:
            raise ValueError(f"the field '{word}' has no simple type")
        word_bits = match[4] or match[7]
        size = int(word_bits) // 8 if word_bits else _TEXT
        width = min(size, 8)
        at = at + width - 1 & -width
        expression = f"{match[2]}#{match[5]}@{match[6]}" if match[5] else match[2]
        fields.append(BodyField(match[1], expression, size, match[3] == "s", at))
        at += size
    # The compiler pads a struct with a u64 in it the same way.
    return Definition(head[2], words[1], words[0][0] == "r", tuple(fields), at + 7 & -8)


def _arguments(fields: Iterable[BodyField]) -> list[int]:
    """Return the numbers of the arguments that fields are made from, from 0."""
    return sorted({int(number) - 1 for field in fields for number in re.findall(r"\$arg(\d+)", field.expression)})


def _value(expression: str, size: int, saved: bool) -> str:
    """Return C for an expression of dynamic_events.

    :param size: of the value, bytes; what is dereferenced on the way are pointers
    :param saved: arguments are those kept from the entry
    :raises ValueError: when plans have no such expression
    """
    bits = _BITS.fullmatch(expression)
    if bits is not None:
        return f"({_value(bits[1], size, saved)} >> {bits[3]} & {hex((1 << int(bits[2])) - 1)})"
    inner = _DEREFERENCE.fullmatch(expression)
    if inner is not None:
        return f"get{8 * size}({_value(inner[2], 8, saved)} + {inner[1]})"
    if expression == "$retval":
        return "(u64)ctx->ax"
    number = re.fullmatch(r"\$arg([1-6])", expression)
    if number is None:
        raise ValueError(f"'{expression}' cannot be fetched")
    return f"call->arg[{int(number[1]) - 1}]" if saved else f"(u64)ctx->{_REGISTERS[int(number[1]) - 1]}"


def _text_at(expression: str, saved: bool) -> str:
    """Return C for where a text is that an expression of dynamic_events dereferences.

    :raises ValueError: when plans have no such expression
    """
    inner = _DEREFERENCE.fullmatch(expression)
    if inner is None:
        raise ValueError(f"'{expression}' is not the place of a text")
    return f"{_value(inner[2], 8, saved)} + {inner[1]}"


def _struct(number: int, definition: Definition) -> str:
    lines = [f"struct record_{number} {{", "\tu64 begun, ts;", "\tu32 cpu, missing;",
             "\tu16 type;", "\tu8 flags, preempt;", "\ts32 pid;"]
    lines += [f"\tu{8 * field.size} {field.name};" if field.size < _TEXT else
              f"\tchar {field.name}[{_TEXT}] __attribute__((aligned(8)));" for field in definition.fields]
    return "\n".join([*lines, "} __attribute__((aligned(8)));\n"])


def _emit(number: int, definition: Definition, saved: bool) -> list[str]:
    """Return the statements that write an event's record."""
    lines = [f"struct record_{number} *e = events.ringbuf_reserve(sizeof(*e));",
             f"if (!e) {{ count({EVENTS}, {number}); return 0; }}",
             "__builtin_memset(e, 0, sizeof(*e));",
             "e->begun = begun;",
             # After the reservation: a record behind this one cannot have an earlier beginning than this bound.
             "e->ts = bpf_ktime_get_ns();",
             "e->cpu = bpf_get_smp_processor_id();",
             "e->missing = missing();",
             f"e->type = {_FIRST_ID + number};",
             "e->pid = (s32)bpf_get_current_pid_tgid();"]
    lines += [f"e->{field.name} = (u{8 * field.size}){_value(field.expression, field.size, saved)};"
              if field.size < _TEXT else
              f"bpf_probe_read_kernel_str(e->{field.name}, {_TEXT}, (void *)({_text_at(field.expression, saved)}));"
              for field in definition.fields]
    return [*lines, "events.ringbuf_submit(e, 0);"]


def _function(name: str, lines: Iterable[str]) -> str:
    return f"int {name}(struct pt_regs *ctx)\n{{\n" + "".join(f"\t{line}\n" for line in lines) + "\treturn 0;\n}\n"


def _only(lru: int | None, definition: Definition, saved: bool) -> list[str]:
    """Return the statements that leave out other LRUs than zswap's."""
    expression = next((field.expression for field in definition.fields if field.name == "lru"), None)
    if lru is None or definition.event not in _LRU_EVENTS or expression is None:
        return []
    return [f"if ({_value(expression, 8, saved)} != {lru:#x}ULL) return 0;"]


def _ours(definition: Definition) -> list[str]:
    """Return the statements that leave out other modules' parameters."""
    if definition.event != "param_set":
        return []
    name = next(field for field in definition.fields if field.name == "name")
    mask = (1 << 8 * len(_OURS)) - 1
    wanted = int.from_bytes(_OURS, "little")
    return [f"if ((get64({_text_at(name.expression, False)}) & {mask:#x}ULL) != {wanted:#x}ULL) return 0;"]


_PRELUDE = """#include <uapi/linux/ptrace.h>
struct key {{ u32 task, event; }};
struct call {{ u64 depth, arg[6]; }};
BPF_F_TABLE("array", int, u64, shared, {cells}, {mmapable});
BPF_HASH(calls, struct key, struct call, {calls});
BPF_RINGBUF_OUTPUT(events, {event_pages});
{pages}
static __always_inline u64 get64(u64 at) {{ u64 v = 0; bpf_probe_read_kernel(&v, 8, (void *)at); return v; }}
static __always_inline u32 get32(u64 at) {{ u32 v = 0; bpf_probe_read_kernel(&v, 4, (void *)at); return v; }}
static __always_inline u16 get16(u64 at) {{ u16 v = 0; bpf_probe_read_kernel(&v, 2, (void *)at); return v; }}
static __always_inline u8 get8(u64 at) {{ u8 v = 0; bpf_probe_read_kernel(&v, 1, (void *)at); return v; }}
static __always_inline int is_running(void)
{{
	int zero = 0;
	u64 *on = shared.lookup(&zero);
	return on && *on;
}}
static __always_inline void count(int kind, int which)
{{
	int first = 1 + bpf_get_smp_processor_id() * {per_cpu}, one = first + {kinds} + which, sum = first + kind;
	u64 *n = shared.lookup(&one), *all = shared.lookup(&sum);
	if (n) (*n)++;
	if (all) (*all)++;
}}
static __always_inline u32 missing(void)
{{
	int sum = 1 + bpf_get_smp_processor_id() * {per_cpu};
	u64 *all = shared.lookup(&sum);
	return all ? (u32)*all : 0;
}}
/* Every CPU's idle task is task 0. */
static __always_inline u32 task(void)
{{
	u32 pid = (u32)bpf_get_current_pid_tgid();
	return pid ? pid : 0x80000000U | bpf_get_smp_processor_id();
}}
"""


def _keep(number: int, definition: Definition, failed: int, lru: int | None) -> list[str]:
    """Return the statements that keep an entry's arguments for the return of event ``number``.

    An interrupt's call inside a call of the same task has no room of its own; it is counted, not guessed.
    """
    lines = [f"struct key key = {{ task(), {number} }};",
             "struct call *open = calls.lookup(&key);",
             f"if (open) {{ open->depth++; if (is_running()) count({CALLS}, {failed}); }} else {{"]
    only = _only(lru, definition, False)
    body = [f"if (calls.update(&key, &call)) count({CALLS}, {failed});"]
    body = ["struct call call = {};", *(f"call.arg[{at}] = (u64)ctx->{_REGISTERS[at]};"
                                        for at in _arguments(definition.fields)), *body]
    if only:
        body = [only[0].replace("!=", "==").replace("return 0;", "{"), *("\t" + line for line in body), "}"]
    return [*lines, *("\t" + line for line in body), "}"]


def program(definitions: Sequence[Definition], pages: Sequence[tuple[str, str, str]], lru: int | None,
            event_pages: int, page_pages: int, group: str = DEFAULT, cpus: int = 1) -> Program:
    """Make the program of a plan.

    Its switch and its counters are one array, which the recorder maps: a system call on a map keeps every program off
    the CPU that runs it (bpf_disable_instrumentation(), include/linux/bpf.h).  A recorder that is preempted in one
    would miss all hits until it runs again.  Cell 0 is the switch.  Each CPU has :data:`KINDS` sums, by kind,
    and then, with n events, a counter for: 0 to n-1 records without room, n to 2n-1 calls whose arguments could not be
    kept, from 2n on pages without room.

    :param definitions: the events
    :param pages: (event, function, expression of the page's address) of the page events
    :param lru: address of zswap's LRU, None to record all
    :param event_pages: size of the ring of events, memory pages, a power of 2
    :param page_pages: the same for page contents
    :param group: of the hooks in tracefs
    :param cpus: CPU numbers are below this
    :raises ValueError: when this back end cannot record an event
    """
    total = len(definitions)
    entries = {row.function: number for number, row in enumerate(definitions) if not row.at_return}
    keep: dict[str, list[int]] = {}
    for number, row in enumerate(definitions):
        if row.at_return and _arguments(row.fields):
            keep.setdefault(row.function, []).append(number)
    per_cpu = KINDS + 2 * total + max(1, len(pages))
    text = [_PRELUDE.format(cells=1 + cpus * per_cpu, per_cpu=per_cpu, kinds=KINDS, mmapable=_MMAPABLE,
                            calls=_OPEN_CALLS, event_pages=event_pages,
                            pages=f"BPF_RINGBUF_OUTPUT(pages, {page_pages});" if pages else "")]
    hooks: list[Hook] = []
    pairs: dict[str, str] = {}
    for number, row in enumerate(definitions):
        text.append(_struct(number, row))
    for function in dict.fromkeys([*entries, *keep]):
        at = entries.get(function)
        name = definitions[at].event if at is not None else f"{definitions[keep[function][0]].event}_args"
        lines = ["u64 begun = bpf_ktime_get_ns();"]
        for number in keep.get(function, ()):
            pairs[definitions[number].event] = name
            lines += ["{", *("\t" + line for line in _keep(number, definitions[number], total + number, lru)), "}"]
        if at is not None:
            lines += ["if (!is_running()) return 0;", *_only(lru, definitions[at], False), *_ours(definitions[at]),
                      *_emit(at, definitions[at], False)]
        text.append(_function(f"on_{name}", lines))
        hooks.append(Hook(name, f"on_{name}", f"p:{group}/{name} {function}"))
    for number, row in enumerate(definitions):
        if not row.at_return:
            continue
        lines = ["u64 begun = bpf_ktime_get_ns();"]
        saved = bool(_arguments(row.fields))
        if saved:
            lines += [f"struct key key = {{ task(), {number} }};",
                      "struct call *open = calls.lookup(&key);",
                      "if (!open) return 0;",
                      "if (open->depth) { open->depth--; return 0; }",
                      "struct call kept = *open, *call = &kept;",
                      "calls.delete(&key);"]
        lines += ["if (!is_running()) return 0;", *_only(lru, row, saved), *_emit(number, row, saved)]
        text.append(_function(f"on_{row.event}", lines))
        hooks.append(Hook(row.event, f"on_{row.event}", f"r256:{group}/{row.event} {row.function}"))
    for number, (event, function, source) in enumerate(pages):
        text.append(_page_handler(number, event, source, 2 * total + number))
        hooks.append(Hook(event, f"on_{event}", f"p:{group}/{event} {function}"))
    return Program("".join(text), tuple(hooks), tuple(row.event for row in definitions),
                   tuple(event for event, _, _ in pages), pairs, cpus, per_cpu)


def _page_handler(number: int, event: str, source: str, failed: int) -> str:
    name = f"struct page_{number}"
    layout = f"{name} {{ u64 ts; u32 cpu; s32 pid; u64 number, src; u8 body[{2 * PAGE_HALF}]; }};\n"
    return layout + _function(f"on_{event}", [
        "if (!is_running()) return 0;",
        f"{name} *e = pages.ringbuf_reserve(sizeof(*e));",
        f"if (!e) {{ count({PAGES}, {failed}); return 0; }}",
        "e->ts = bpf_ktime_get_ns();",
        "e->cpu = bpf_get_smp_processor_id();",
        "e->pid = (s32)bpf_get_current_pid_tgid();",
        f"e->number = {number};",
        f"e->src = {_value(source, 8, False)};",
        "if (bpf_probe_read_kernel(e->body, sizeof(e->body), (void *)e->src)) {",
        f"\tcount({PAGES}, {failed});",
        "\tpages.ringbuf_discard(e, 0);",
        "\treturn 0;",
        "}",
        "pages.ringbuf_submit(e, 0);"])


# What formats/ of a capture holds

_FORMAT = """name: {name}
ID: {number}
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

{fields}
print fmt: ""
"""


def event_format(number: int, definition: Definition) -> str:
    """Return the ``format`` of event ``number`` of a program."""
    fields = "".join(f"\tfield:{_declared(field)};\toffset:{field.offset};\tsize:{field.size};\t"
                     f"signed:{int(field.signed)};\n" for field in definition.fields)
    return _FORMAT.format(name=definition.event, number=_FIRST_ID + number, fields=fields)


def _declared(field: BodyField) -> str:
    if field.size == _TEXT:
        return f"char {field.name}[{_TEXT}]"
    return f"{'s' if field.signed else 'u'}{8 * field.size} {field.name}"


def half_formats(number: int) -> tuple[tuple[int, str], tuple[int, str]]:
    """Return (id, ``format``) of both halves of page event ``number``, as :mod:`pages` pairs them."""
    fields = (f"\tfield:u64 src;\toffset:{_COMMON};\tsize:8;\tsigned:0;\n"
              f"\tfield:u64 c0[{PAGE_HALF // 8}];\toffset:{_COMMON + 8};\tsize:{PAGE_HALF};\tsigned:0;\n")
    lower, upper = (_FIRST_PAGE_ID + 2 * number + half for half in (0, 1))
    return ((lower, _FORMAT.format(name=f"pg{number}_0", number=lower, fields=fields)),
            (upper, _FORMAT.format(name=f"pg{number}_1", number=upper, fields=fields)))


def header_page(size: int) -> str:
    """Return ``header_page`` of sub-buffers of ``size`` bytes."""
    return ("\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
            "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:16;\tsize:{size - 16};\tsigned:1;\n")


def header_event() -> str:
    """Return ``header_event``: how :mod:`bccring` writes an event's header."""
    return ("# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n"
            "\tarray       :   32 bits\n\n"
            "\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n"
            "\tdata max type_len  == 28\n")


# What BCC includes of the kernel

_TYPES = """#ifndef _ZREPLAY_TYPES
#define _ZREPLAY_TYPES
typedef signed char __s8; typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16;
typedef int __s32; typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __s8 s8; typedef __u8 u8; typedef __s16 s16; typedef __u16 u16;
typedef __s32 s32; typedef __u32 u32; typedef __s64 s64; typedef __u64 u64;
typedef __u16 __be16; typedef __u16 __le16; typedef __u32 __be32; typedef __u32 __le32;
typedef __u64 __be64; typedef __u64 __le64; typedef __u16 __sum16; typedef __u32 __wsum;
typedef __u64 __aligned_u64 __attribute__((aligned(8)));
typedef int pid_t; typedef unsigned long size_t; typedef long ssize_t; typedef unsigned long uintptr_t;
typedef _Bool bool;
#define true 1
#define false 0
#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#endif
"""
_PTRACE = """#ifndef _ZREPLAY_PTRACE
#define _ZREPLAY_PTRACE
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#endif
"""


def header_files(release: str) -> dict[str, str]:
    """Return the kernel headers that BCC (0.24 to 0.35) includes by itself, cut down to what its own text uses.

    :param release: ``uname -r``
    """
    major, minor = release_line(release) or (0, 0)
    version = ("#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
               f"#define LINUX_VERSION_CODE KERNEL_VERSION({major}, {minor}, 0)\n")
    return {"include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n#include <linux/types.h>\n",
            "include/linux/types.h": _TYPES, "include/linux/version.h": version,
            "include/linux/bpf_common.h": "", "include/linux/log2.h": "",
            "include/uapi/linux/bpf.h": "", "include/uapi/linux/if_packet.h": "",
            "include/uapi/linux/if_ether.h": "", "include/uapi/linux/ptrace.h": _PTRACE,
            "arch/x86/include/asm/page.h": "#define PAGE_SIZE 4096UL\n"}


def write_headers(directory: Path, release: str) -> None:
    """Write :func:`header_files` below a directory."""
    for name, text in header_files(release).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def definitions_of(planned: Iterable[Planned]) -> tuple[list[Definition], dict[str, str]]:
    """Return the events of a plan, and why the others cannot be recorded."""
    found: list[Definition] = []
    refused: dict[str, str] = {}
    for row in planned:
        if not row.lines:
            continue
        try:
            definition = parse(row.lines[-1])
            for field in definition.fields:
                if field.size < _TEXT:
                    _value(field.expression, field.size, definition.at_return)
                else:
                    _text_at(field.expression, definition.at_return)
        except ValueError as problem:
            refused[row.event] = str(problem)
            continue
        found.append(definition)
    return found, refused
