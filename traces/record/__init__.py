# SPDX-License-Identifier: GPL-2.0-or-later
"""The tracefs recorder: what zswap and zsmalloc do on the running kernel, into a raw capture directory.

It runs on boxes that have Python 3.9 and nothing else, from a checkout (``python3 traces/record``), as one file
(``zreplay-record.pyz``, see :mod:`build`) or as ``zreplay record``.  So its modules use the standard library only
and import each other relatively: importing :mod:`traces` itself would ask for pandas.
"""
