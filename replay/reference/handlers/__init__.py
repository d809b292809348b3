# SPDX-License-Identifier: GPL-2.0-or-later
"""One handler per effect: checks its event and sends the model its answer."""
