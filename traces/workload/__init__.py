# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload driver: makes zswap do chosen things with known pages, on the kernel it runs on.

It uses the standard library only and imports its modules relatively, so that it runs from a checkout
(``python3 traces/workload base``) where nothing is installed.  Run it under a recorder; the two share

* ``ZREPLAY_MARKER``: the ``trace_marker`` that phases and settings are announced in (``:`` between several);
* ``ZREPLAY_CONTROL``: the recorder's pipe that takes orders for counter snapshots; ``truth.csv`` goes next to it;
* ``ZREPLAY_PAGES``: a file in the recorder's memory that says how pages are named (``naming.py``).
"""
