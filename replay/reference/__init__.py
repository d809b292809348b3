# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference engine: recorded events drive the model, and every effect is checked against its event."""
