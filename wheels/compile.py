"""Compile all kernels for one level of one machine, into object files.

A process compiles for one level: ``python -m wheels.compile TRIPLE LEVEL FOLDER``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from npylstm.kernels import target
from npylstm.native.levels import LEVELS
from wheels.platforms import compiler_options

__all__ = ["main"]

DTYPES = ("float32", "float64")
# Modules of kernels whose loops are not unrolled. Those of recurrent and dense layers are: without,
# small models are up to a tenth slower.
SHORT = ("attention", "elementwise", "matrices", "moves", "normalizing", "reductions", "softmax")


def main(triple: str, level: str, folder: Path) -> None:
    """Write an object for each dtype, and one with the digest of the argument table."""
    cpu, features, asked = compiler_options(level)
    made = next(row for row in LEVELS if row.name == level)
    target.TARGET = target.Target.of(made.machine, asked)  # the kernels, imported below, read it
    from npylstm.kernels.library import ENTRIES
    from npylstm.kernels.table import KERNELS
    from npylstm.native.digests import table_digest
    from npylstm.native.shipped import DIGEST_SYMBOL, symbol
    from wheels.codegen import Machine, compile_object, constant_object, install

    made_for = Machine(triple, cpu, features)
    install(made_for)
    folder.mkdir(parents=True, exist_ok=True)
    digest = constant_object(made_for, DIGEST_SYMBOL, table_digest().encode())
    (folder / "digest.o").write_bytes(digest)
    kernels = [k for k in KERNELS if not made.modules or k.module in made.modules]
    entries = [] if made.modules else [*ENTRIES]
    groups = [(dtype, [k for k in kernels if dtype in k.dtypes]) for dtype in DTYPES]
    for dtype, group in (*groups, ("int64", entries)):
        if not group:
            continue
        names = {kernel: symbol(level, kernel.name, dtype) for kernel in group}
        sources = {
            name: getattr(importlib.import_module(f"npylstm.kernels.{kernel.module}"), kernel.name)
            for kernel, name in names.items()
        }
        short = {name for kernel, name in names.items() if kernel.module in SHORT}
        (folder / f"{dtype}.o").write_bytes(compile_object(sources, dtype, short))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
