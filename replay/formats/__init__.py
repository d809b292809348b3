# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay found, for other programs and for mails: KTAP, JUnit XML, JSON, plain text of 72 columns."""
