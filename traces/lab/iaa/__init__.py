# SPDX-License-Identifier: GPL-2.0-or-later
"""An Intel IAA (8086:0cfe) that is a process: QEMU's vfio-user-pci gives it to a guest, whose idxd and iaa_crypto
drive it."""
