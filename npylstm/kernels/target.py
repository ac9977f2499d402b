"""The processor that kernels are compiled for.

Numba compiles for this machine, or as its settings ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``
say. A build of wheels replaces :data:`TARGET` before it imports the kernels.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import llvmlite.binding as llvm
import numba

from npylstm.native.levels import machine

__all__ = ["LLVM_VERSION", "TARGET", "Target"]

LLVM_VERSION: int = llvm.llvm_version_info[0]

# By the size of a vector: the feature, and LLVM's name.
_PAIRS = {
    64: ("avx512bw", "avx512.pmaddw.d.512"),
    32: ("avx2", "avx2.pmadd.wd"),
    16: ("sse2", "sse2.pmadd.wd"),
}


class Target(NamedTuple):
    """What kernels depend on in a processor.

    Attributes
    ----------
    machine
        As :func:`npylstm.native.levels.machine` returns it.
    vector_bytes
        Size of a vector. More than the processor's registers hold is possible: the compiler splits
        vectors.
    registers
        Number of vector registers.
    has_fma
        Whether there is an instruction for ``a * b + c`` rounded once. Without it, kernels round
        twice: a function call for each product would be ten times slower.
    has_vnni
        Whether there is AVX512-VNNI: an instruction for four products of bytes and their sum.
    multiply_pairs
        LLVM's name of the instruction for two products of 16 bits and their sum, in vectors of this
        size; empty if there is none.
    """

    machine: str
    vector_bytes: int
    registers: int
    has_fma: bool
    has_vnni: bool
    multiply_pairs: str

    @classmethod
    def of(cls, machine: str, features: Collection[str]) -> Target:
        """Return the target with these features, by LLVM's names."""
        is_arm = machine == "aarch64"
        size = 64 if "avx512f" in features else 32 if "avx" in features else 16
        registers = 32 if is_arm or size == 64 else 16
        has_vnni = size == 64 and "avx512vnni" in features
        needed, name = _PAIRS[size]
        pairs = "" if is_arm or needed not in features else f"llvm.x86.{name}"
        return cls(machine, size, registers, is_arm or "fma" in features, has_vnni, pairs)


def _here() -> Target:
    """Return the target that Numba compiles for."""
    asked = numba.config.CPU_FEATURES
    if asked is not None:
        features = {name[1:] for name in asked.split(",") if name.startswith("+")}
    else:
        features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if not numba.config.ENABLE_AVX:
        features = {name for name in features if not name.startswith("avx")}
    return Target.of(machine(), features)


TARGET = _here()
