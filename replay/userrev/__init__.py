# SPDX-License-Identifier: GPL-2.0-or-later
"""Revisions that a user wrote: loading, checking, confining and guarding them."""
