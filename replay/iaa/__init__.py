# SPDX-License-Identifier: GPL-2.0-or-later
"""The iaa_crypto driver of a recorded guest, checked with what its emulated devices saw."""
