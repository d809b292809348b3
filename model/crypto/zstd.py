# SPDX-License-Identifier: GPL-2.0-or-later
"""zstd as `zstd_compress_one` (crypto/zstd.c, Linux 6.18 to 7.3) and `__zstd_compress` (6.12) give it.

Level 3 in both, but not the same parameters, and not the same library: 6.12 carries libzstd 1.5.2 and asks
for the parameters of an unknown source size, later kernels carry 1.5.7 and ask for those of 256 KiB. The
outputs of 1.5.2 to 1.5.6 are equal for these parameters, those of 1.5.7 are not, so a process that replays
both generations needs two bindings side by side; each is used only for the libzstd it really contains.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from ..errno import EINVAL
from ..lines import line_named
from ..page import PAGE_SIZE
from . import knownanswers
from .base import Buffer, CorruptData, InexactLibrary, LibraryCompressor, PageFunction

Version = tuple[int, int, int]


class Parameters(NamedTuple):
    """What `zstd_get_params(3, hint)` returns; libzstd itself then fits them to a 4096-byte source."""

    window_log: int
    chain_log: int
    hash_log: int
    search_log: int
    min_match: int
    target_length: int
    strategy: int  # 2 is ZSTD_dfast


class _Generation(NamedTuple):
    parameters: Parameters
    versions: tuple[Version, ...]  # libzstd versions whose output is the kernel's
    err_dlen: int  # req->dlen after an error, bytes
    advice: str


_OLD = _Generation(
    Parameters(21, 16, 17, 1, 5, 0, 2),
    ((1, 5, 2), (1, 5, 4), (1, 5, 5), (1, 5, 6)),  # 1.5.3 was never a binding's
    PAGE_SIZE,  # 6.12: scomp_acomp_comp_decomp leaves the length it was offered
    "zstandard==0.23.0",
)
_NEW = _Generation(
    Parameters(18, 16, 16, 1, 4, 0, 2),
    ((1, 5, 7),),
    0,  # seen in every recording of 7.2 and 7.3
    "backports.zstd",
)
#: libzstd of the kernel -> what computes as it does
_GENERATIONS: Final = {"1.5.2": _OLD, "1.5.7": _NEW}


class Binding(Protocol):
    """A Python binding of one libzstd."""

    label: str
    version: Version

    def page_function(self, parameters: Parameters) -> PageFunction:
        """A compressing function with a context of its own, for one thread."""

    def decompress(self, data: Buffer, size: int) -> bytes:
        """What the frame `data` holds, at most `size` + 1 bytes; CorruptData if it is not one whole frame."""


class _Zstandard:
    """The `zstandard` package (python-zstandard)."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._local = threading.local()
        self.version: Version = tuple(module.ZSTD_VERSION)
        self.label = f"zstandard {module.__version__}"

    def page_function(self, parameters: Parameters) -> PageFunction:
        settings = self._module.ZstdCompressionParameters(
            **parameters._asdict(), write_content_size=True, write_checksum=False, write_dict_id=False
        )
        function: PageFunction = self._module.ZstdCompressor(compression_params=settings).compress
        return function

    def _decompressor(self) -> Any:
        try:
            return self._local.decompressor
        except AttributeError:
            self._local.decompressor = self._module.ZstdDecompressor()
            return self._local.decompressor

    def decompress(self, data: Buffer, size: int) -> bytes:
        try:
            # The binding allocates what a frame header promises, so the promise is read first.
            promised = self._module.frame_content_size(data)
            if promised not in (-1, size):
                raise CorruptData(f"zstd: the frame header says {promised} bytes instead of {size}")
            page: bytes = self._decompressor().decompress(data, max_output_size=size, allow_extra_data=False)
        except self._module.ZstdError as error:
            raise CorruptData(f"zstd: {error}") from error
        return page


class _Pep784:
    """`compression.zstd` of Python 3.14 and its twin for older Pythons, `backports.zstd`."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.version: Version = tuple(module.zstd_version_info)
        self.label = str(module.__name__)

    def page_function(self, parameters: Parameters) -> PageFunction:
        names = self._module.CompressionParameter
        options = {getattr(names, key): value for key, value in parameters._asdict().items()}
        options |= {names.content_size_flag: 1, names.checksum_flag: 0, names.dict_id_flag: 0}
        compressor = self._module.ZstdCompressor(options=options)
        compress, whole_frame = compressor.compress, compressor.FLUSH_FRAME

        def page_to_frame(page: Buffer) -> bytes:
            # Input and end in one call: libzstd then knows the source size, as in ZSTD_compress2.
            frame: bytes = compress(page, whole_frame)
            return frame

        return page_to_frame

    def decompress(self, data: Buffer, size: int) -> bytes:
        decompressor = self._module.ZstdDecompressor()  # good for one frame only
        try:
            promised = self._module.get_frame_info(data).decompressed_size
            if promised not in (None, size):
                raise CorruptData(f"zstd: the frame header says {promised} bytes instead of {size}")
            page: bytes = decompressor.decompress(data, size + 1)
        except self._module.ZstdError as error:
            raise CorruptData(f"zstd: {error}") from error
        if not decompressor.eof:
            raise CorruptData(f"zstd: the frame does not end within {len(data)} bytes in and {size} out")
        if decompressor.unused_data:
            raise CorruptData(f"zstd: {len(decompressor.unused_data)} bytes behind the frame")
        return page


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _bindings() -> Iterator[Binding]:
    """Every libzstd binding installed here, in order of preference."""
    for name in ("compression.zstd", "backports.zstd"):
        if module := _module(name):
            yield _Pep784(module)
    if module := _module("zstandard"):
        yield _Zstandard(module)


def streaming_module() -> Any:
    """The binding of libzstd 1.5.7 that compresses and decompresses streams; InexactLibrary if there is none."""
    for binding in _bindings():
        if isinstance(binding, _Pep784) and binding.version in _NEW.versions:
            return binding._module
    raise InexactLibrary(f"zstd's streaming branch needs libzstd 1.5.7: install {_NEW.advice}")


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _binding_for(kernel_line: str, generation: _Generation) -> Binding:
    found = list(_bindings())
    for binding in found:
        if binding.version in generation.versions:
            return binding
    wanted = " or ".join(map(_dotted, generation.versions))
    here = ", ".join(f"{b.label} (libzstd {_dotted(b.version)})" for b in found) or "no libzstd binding"
    raise InexactLibrary(
        f"zstd of {kernel_line} needs libzstd {wanted}, and here is {here}: install {generation.advice}"
    )


class Zstd(LibraryCompressor):
    """zstd level 3 of one kernel line; -EINVAL if the frame would be longer than 4096 bytes."""

    name = "zstd"

    def __init__(self, kernel_line: str) -> None:
        super().__init__()
        generation = _GENERATIONS[line_named(kernel_line).zstd]
        self._parameters = generation.parameters
        self._binding = _binding_for(kernel_line, generation)
        self._err = EINVAL
        self._err_dlen = generation.err_dlen
        # Nothing between 4040 and 4096 exists: libzstd stores such a block raw, in 4106 bytes.
        self._max_len = PAGE_SIZE
        settings = " ".join(f"{key}={value}" for key, value in self._parameters._asdict().items())
        self.ident = (
            f"zstd libzstd {_dotted(self._binding.version)} ({self._binding.label}) {settings} "
            f"pledged={PAGE_SIZE} dst={PAGE_SIZE} err={self._err},{self._err_dlen}"
        )

    def _page_function(self) -> PageFunction:
        return self._binding.page_function(self._parameters)

    def decompress(self, data: Buffer, size: int = PAGE_SIZE) -> bytes:
        page = self._binding.decompress(data, size)
        if len(page) != size:
            raise CorruptData(f"zstd: {len(page)} bytes instead of {size}")
        return page

    def self_check(self) -> list[str]:
        return knownanswers.problems(self, "zstd-old" if self._parameters == _OLD.parameters else "zstd-new")
