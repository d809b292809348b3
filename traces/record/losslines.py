# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording lost, as the recorder says it at the end."""

from __future__ import annotations

from typing import Any

__all__ = ["loss_lines"]

#: Things that other processes did that are named.
_SHOWN = 4


def loss_lines(status: dict[str, Any]) -> list[str]:
    """Return what was lost, in sentences: per CPU and per probe, also where it is nothing or unknown."""
    losses = status["losses"]
    lines = []
    for what, cpus in (("events", losses["cpus"]), ("pages", losses["pages"])):
        if not cpus:
            continue
        unknown = [cpu for cpu, counts in cpus.items() if "unknown" in counts.values()]
        lost = {cpu: sum(counts.values()) for cpu, counts in cpus.items() if cpu not in unknown}
        bad = [f"CPU {cpu}: {count}" for cpu, count in lost.items() if count]
        bad += [f"CPU {cpu}: unknown" for cpu in unknown]
        lines.append(f"{what} lost in the rings of {len(cpus)} CPU{'s' * (len(cpus) != 1)}: "
                     f"{', '.join(bad) if bad else 'none'}.")
    missed = [f"{event}: {count}" for event, count in losses["probes"].items() if count not in (0, "unknown")]
    unknown = [event for event, count in losses["probes"].items() if count == "unknown"]
    text = f"hits missed by probes: {', '.join(missed) if missed else 'none known'}"
    if unknown:
        text += f"; unknown for the {len(unknown)} that are fprobes (the kernel keeps no count of them)"
    lines.append(text + ".")
    others = [str(row["what"]) for row in status.get("interference", ())]
    if others:
        lines.append(f"events lost to other processes: unknown ({'; '.join(others[:_SHOWN])}"
                     f"{f'; and {len(others) - _SHOWN} more' if len(others) > _SHOWN else ''}).")
    return lines
