# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled replay: the mainline revisions' steps over tables of numbers, checked against events column by column.

It only ever says that events are what the reference (:mod:`replay.reference.engine`, :mod:`model`) predicts.  Whatever
it cannot confirm goes back to the reference, from a moment before it at which no operation was under way: a divergence
is always the reference's.  ``layout`` names the tables' columns, ``tables`` finds and links rows, ``advance`` runs an
operation to its next effect, ``step`` checks events against effects, ``memory`` owns the tables and turns them into
the model's state and back, ``eligible`` says what can be replayed so, ``runner`` drives.
"""
