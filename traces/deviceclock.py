# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a recording begins in the job log of its emulated devices, and which frame a struct page stands for.

The devices know page frames and the host's clock; a recording knows struct pages and the guest's.  Both clocks run
alike, so what lies between a call and its job is the same for all calls, but for the time that each takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np

__all__ = ["NO_QUEUE", "STRUCT_PAGE", "ClockMatch", "first_job", "vmemmap_of"]

#: -ENODEV and -ENXIO: what mainline's driver returns where a queue is not there (iaa_wq_get(), wq_table_next_wq()), or
#: takes no more descriptors (idxd_submit_desc() behind idxd_wq_quiesce()).  Such a call left no job.
NO_QUEUE: Final = (-19, -6)
#: sizeof(struct page) of x86-64
STRUCT_PAGE: Final = 64
#: KASLR moves vmemmap in steps of a gibibyte (kernel_randomize_memory()).
_VMEMMAP_STEP: Final = (1 << 30) - 1
#: This many calls are enough to find vmemmap, and how the clocks differ.
_ENOUGH: Final = 512
#: Frames as far apart as vmemmap's steps that are looked at: that many times 64 GiB.
_MOST_ALIKE: Final = 64
#: Jobs of one frame that are looked at for one call.
_MOST_OF_FRAME: Final = 4096
#: Nanoseconds: most jobs are submitted this soon after their call began.
_SOON: Final = 50_000_000
#: Nanoseconds by which a pair may lie closer than those so far; and more, this part of the time since the closest, as
#: the guest's clock is calibrated at its boot alone.
_CLOSER: Final = 2_000_000
_DRIFT: Final = 1 / 3000
#: Nanoseconds behind a call's end in which a job may still be its own: a pair too close by the above is taken, too.
_LATE: Final = 5_000_000
#: One of this many jobs of the calls' time has to have its call there, or the clocks do not fit: a CPU's calls may be
#: all that a recording has.
_FITTING: Final = 8
#: Of chained requests a call shows the head: one of this many jobs has a call there, or of one of the frames before,
#: of which a batch has as many.
_CHAINED: Final = 2
_BATCH: Final = 8
#: With this many pairs fewer than half of the calls may have a job: what has no queue makes none.
_MANY: Final = 16
#: Nanoseconds by which the clocks may run apart while the first calls are made.
_SLACK: Final = 10_000_000


def vmemmap_of(pages: Sequence[int], frames: Sequence[int]) -> int | None:
    """Return the address of the struct page of frame 0, None where pages and frames do not agree on one.

    :param pages: struct pages that were handed over to be compressed
    :param frames: page frames of the sources of compress jobs
    """
    alike: dict[int, set[int]] = defaultdict(set)
    for frame in frames:
        if len(of := alike[STRUCT_PAGE * frame & _VMEMMAP_STEP]) < _MOST_ALIKE:
            of.add(frame)
    votes = Counter(page - STRUCT_PAGE * frame for page in pages[:_ENOUGH]
                    for frame in alike.get(page & _VMEMMAP_STEP, ()))
    return votes.most_common(1)[0][0] if votes else None


class ClockMatch:
    """How far the devices' clock is ahead of a recording's, as its calls and their jobs show one after another.

    A job that came before its call is of before the recording, or nobody's; one that came after it was over is a later
    call's.  What lies least between a call and its job says how far the clocks are apart: on a busy host all jobs of a
    second may come late.

    :param ahead: at the beginning: see :func:`first_job`
    """

    def __init__(self, ahead: int) -> None:
        #: nanoseconds from a call to its job, at least
        self.ahead = ahead
        self._at: int | None = None

    def is_before(self, submitted: int, ts: int) -> bool:
        """True where a job was submitted before a call that began at ``ts``."""
        return submitted - ts < self.ahead - _CLOSER - self._drift(ts)

    def is_behind(self, submitted: int, ts: int) -> bool:
        """True where a job was submitted when a call was over, at ``ts``: it is of a later one."""
        return submitted - ts > self.ahead + _LATE + self._drift(ts)

    def _drift(self, ts: int) -> int:
        """How far the clocks may have run apart since then."""
        return 0 if self._at is None else int(abs(ts - self._at) * _DRIFT)

    def take(self, submitted: int, ts: int) -> None:
        """Learn from a call and its job."""
        if self._at is None or submitted - ts <= self.ahead:
            self.ahead, self._at = min(self.ahead, submitted - ts), ts


def first_job(calls: Sequence[tuple[int, int]], jobs: Sequence[tuple[int, int]], begin: int) -> tuple[int, int] | None:
    """Return when the devices' clock says that a recording's first call began, and how far that clock is ahead.

    Earlier jobs are not the recording's.  The second is the least that lies between a call and its job.  None where
    the clocks do not show it: few of the calls have a job that fits, or few of the jobs meanwhile have a call.

    :param calls: compress calls, as (time stamp in nanoseconds, page frame), in order
    :param jobs: compress jobs, as (time of submission, page frame)
    :param begin: time stamp of the first call of any kind
    """
    of: dict[int, list[int]] = defaultdict(list)
    for submitted, frame in jobs:
        of[frame].append(submitted)
    # From all of the recording: a driver may have no queue for a part of it.
    some = calls[::max(1, len(calls) // _ENOUGH)]
    apart = [np.array(of[frame][:_MOST_OF_FRAME], np.int64) - ts for ts, frame in some if frame in of]
    if not apart:
        return None
    gaps = np.sort(np.concatenate(apart))
    fitting = np.searchsorted(gaps, gaps + _SOON, "right") - np.arange(gaps.size)
    # Most jobs follow their calls at once: where the most lie together is how far the clocks are apart.
    together = np.searchsorted(gaps, gaps + _CLOSER, "right") - np.arange(gaps.size)
    # A workload that repeats itself fits at each round, but never so closely.  Of equals the last: what a recording's
    # calls did comes behind what was done before.
    best = max(np.flatnonzero(fitting == fitting.max()).tolist(),
               key=lambda at: (int(together[at:at + int(fitting[at])].max()), at))
    if 2 * int(fitting[best]) < len(apart) and int(fitting[best]) < _MANY:
        return None
    earliest = np.searchsorted(gaps, gaps[best] - _SLACK)
    ahead = int(gaps[best + int(together[best:best + int(fitting[best])].argmax())])
    if not _jobs_fit(calls, jobs, ahead):
        return None
    return begin + int(gaps[earliest]) - _SLACK, ahead


def _jobs_fit(calls: Sequence[tuple[int, int]], jobs: Sequence[tuple[int, int]], ahead: int) -> bool:
    """True where enough jobs that were submitted while calls were made have one, if the clocks are so far apart."""
    of: dict[int, list[int]] = defaultdict(list)
    for ts, frame in calls:
        of[frame].append(ts)
    first, last = calls[0][0] + ahead, calls[-1][0] + ahead
    inside = [(submitted - ahead, frame) for submitted, frame in jobs if first <= submitted <= last]
    some = inside[::max(1, len(inside) // _ENOUGH)]

    def has_call(ts: int, frame: int) -> bool:
        stamps = of.get(frame, [])
        at = bisect_right(stamps, ts + _SLACK)
        return at > 0 and stamps[at - 1] >= ts - _SOON

    own = sum(has_call(ts, frame) for ts, frame in some)
    return _FITTING * own >= len(some) or \
        _CHAINED * sum(any(has_call(ts, frame - k) for k in range(_BATCH)) for ts, frame in some) >= len(some)
