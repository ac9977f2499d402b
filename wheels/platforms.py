"""The platforms that wheels are built for: one row each."""

from __future__ import annotations

import platform
from typing import NamedTuple

from npylstm.native.levels import LEVELS, machine, system

__all__ = ["PLATFORMS", "Platform", "compiler_options", "platform_here"]


class Platform(NamedTuple):
    """A platform.

    Attributes
    ----------
    name
        As in the commands.
    system, machine
        As :mod:`npylstm.native.levels` returns them.
    llvm
        LLVM's target triple, for object code.
    zig
        Zig's target, for linking.
    tag
        The wheel's platform tag.
    file
        Name of the library.
    run
        Where its wheel is run by the tests: ``"natively"``, ``"under emulation"`` or ``"not run"``.
    """

    name: str
    system: str
    machine: str
    llvm: str
    zig: str
    tag: str
    file: str
    run: str

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, the best first."""
        return tuple(level.name for level in LEVELS if level.machine == self.machine)


PLATFORMS = {
    row.name: row
    for row in (
        Platform("manylinux-x86_64", "linux", "x86_64", "x86_64-unknown-linux-gnu",
                 "x86_64-linux-gnu.2.17", "manylinux2014_x86_64.manylinux_2_17_x86_64",
                 "kernels.so", "natively"),
        Platform("musllinux-x86_64", "linux", "x86_64", "x86_64-unknown-linux-gnu",
                 "x86_64-linux-musl", "musllinux_1_1_x86_64", "kernels.so", "natively"),
        Platform("manylinux-aarch64", "linux", "aarch64", "aarch64-unknown-linux-gnu",
                 "aarch64-linux-gnu.2.17", "manylinux2014_aarch64.manylinux_2_17_aarch64",
                 "kernels.so", "under emulation"),
        Platform("musllinux-aarch64", "linux", "aarch64", "aarch64-unknown-linux-gnu",
                 "aarch64-linux-musl", "musllinux_1_1_aarch64", "kernels.so", "not run"),
        Platform("macos-arm64", "macos", "aarch64", "arm64-apple-macosx11.0.0",
                 "aarch64-macos.11.0", "macosx_11_0_arm64", "kernels.dylib", "not run"),
        Platform("windows-x86_64", "windows", "x86_64", "x86_64-pc-windows-gnu",
                 "x86_64-windows-gnu", "win_amd64", "kernels.dll", "not run"),
    )
}  # fmt: skip

# LLVM's processor and features for each level. Instructions that NumPy does not report on all of
# its versions are left out: kernels of a level use what Level.features lists, and no more.
_UNREPORTED = "-bmi,-bmi2,-lzcnt,-movbe"
_OPTIONS = {
    "v2": ("x86-64-v2", ""),
    "v3": ("x86-64-v3", _UNREPORTED),
    "v4": ("x86-64-v4", _UNREPORTED),
    "v4_vnni": ("x86-64-v4", f"{_UNREPORTED},+avx512vnni"),
    "neon": ("generic", "+neon"),
}
# Features by LLVM's names, of those that npylstm.kernels.target asks for.
_V4 = ("avx", "avx2", "fma", "avx512f", "avx512bw")
_FEATURES = {
    "v2": ("sse2",), "v3": ("avx", "avx2", "fma"), "v4": _V4, "v4_vnni": (*_V4, "avx512vnni"),
    "neon": (),
}  # fmt: skip


def compiler_options(level: str) -> tuple[str, str, tuple[str, ...]]:
    """Return LLVM's processor, its features as text, and the features that the kernels ask for."""
    return (*_OPTIONS[level], _FEATURES[level])


def platform_here() -> Platform | None:
    """Return the platform of this machine; None if wheels are built for no such one."""
    musl = system() == "linux" and platform.libc_ver()[0] != "glibc"
    for row in PLATFORMS.values():
        if (row.system, row.machine) == (system(), machine()) and ("musl" in row.name) == musl:
            return row
    return None
