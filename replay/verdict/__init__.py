# SPDX-License-Identifier: GPL-2.0-or-later
"""From a replay to a verdict: losses, certainty, and the whole of a replay in one call."""
