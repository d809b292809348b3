# SPDX-License-Identifier: GPL-2.0-or-later
"""An emulated IAA in the lab: its options, and what they need of the box."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from replay.cli.labcommon import Shelf
from traces.lab.apt import cache_directory
from traces.lab.devices import GuestIaa
from traces.lab.emulator import check_emulator, own_emulator
from traces.lab.errors import LabError
from traces.lab.iaa.faults import IaaFaultPlan
from traces.lab.iaa.options import IaaOptions
from traces.lab.kernels import BootKernel, modules_for
from traces.lab.movdir64b import MODULE, check_plugin, plugin

__all__ = ["OF_IAA", "add_iaa_options", "check", "guest_iaa"]

#: zswap's compressor where the user names none.
_COMPRESSOR: Final = "zstd"
#: What compressors of the devices begin with.
OF_IAA: Final = "deflate-iaa"


def add_iaa_options(parser: argparse.ArgumentParser) -> None:
    """Add what belongs to an emulated IAA."""
    group = parser.add_argument_group(
        "IAA", "Emulated Intel IAA devices for the kernel's own idxd and iaa_crypto drivers, under TCG. The lab "
               "fetches the QEMU that they need into its cache.")
    group.add_argument("--iaa", type=_options, metavar="OPTIONS", nargs="?", const="",
                       help="NAME=VALUE, separated by commas, of devices (of a guest), wqs and engines (of a device), "
                            "depth (descriptors of a device), mode (sync, async, async_irq), verify (0, 1), version "
                            "(1, 2), rebind (how often a queue is taken away from the driver, or given back, such as "
                            f"500ms); the compressor is then {OF_IAA}")
    group.add_argument("--iaa-faults", type=Path, metavar="FILE",
                       help="a plan of faults: what goes wrong in the devices")
    group.add_argument("--qemu", type=Path, metavar="PATH",
                       help="a QEMU of your own for --iaa: 11.1 or later, with vfio-user and plugins")


def _options(text: str) -> IaaOptions:
    try:
        return IaaOptions.parse(text)
    except LabError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _plan(path: Path | None, devices: int) -> str:
    """Return the text of a plan, checked before anything boots; "" for none.

    :raises LabError: when it cannot be read, or a line is not a rule
    """
    if path is None:
        return ""
    IaaFaultPlan.read(path, devices)
    return path.read_text()


def check(arguments: argparse.Namespace) -> None:
    """See that the options fit each other, and choose the compressor.

    :raises LabError: when they do not
    """
    if arguments.iaa is None:
        for name, value in (("--iaa-faults", arguments.iaa_faults), ("--qemu", arguments.qemu)):
            if value is not None:
                raise LabError(f"{name} says nothing without --iaa; give both")
    elif arguments.accel == "kvm":
        raise LabError("--iaa needs --accel tcg: KVM does not carry out MOVDIR64B on the portal of an emulated device; "
                       "leave --accel out")
    elif any(text.split()[0] == "fake_iaa" for text in arguments.module):
        raise LabError("--iaa and the module fake_iaa both are deflate-iaa; leave one out")
    if arguments.compressor is None:
        arguments.compressor = _COMPRESSOR if arguments.iaa is None else OF_IAA


def guest_iaa(arguments: argparse.Namespace, kernel: BootKernel, shelf: Shelf) -> GuestIaa | None:
    """Return the devices that the options ask for, None for none: QEMU and who plays MOVDIR64B come along.

    :raises LabError: when one of them cannot be had, or does not fit
    """
    if arguments.iaa is None:
        return None
    faults = _plan(arguments.iaa_faults, arguments.iaa.devices)
    emulator = own_emulator(arguments.qemu) if arguments.qemu is not None else shelf.emulator()
    if arguments.qemu is not None:
        check_emulator(emulator)
    made = plugin(cache_directory(), shelf.say)
    if made is not None:
        check_plugin(emulator, made)
    elif not any(name == MODULE for name, _ in modules_for(kernel, (MODULE,))):
        raise LabError(f"MOVDIR64B needs a compiler, to make QEMU's plugin, or the module {MODULE} in the guest, which "
                       f"{kernel.release} does not have; apt install gcc libc6-dev, or take a kernel of zreplay lab "
                       "build")
    return GuestIaa(arguments.iaa, emulator, made, faults)
