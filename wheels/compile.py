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


def main(triple: str, level: str, folder: Path) -> None:
    """Write an object for each dtype, and one with the digest of the argument table."""
    cpu, features, names = compiler_options(level)
    machine = next(row.machine for row in LEVELS if row.name == level)
    target.TARGET = target.Target.of(machine, names)  # the kernels, imported below, read it
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
    kernels = dict.fromkeys(KERNELS)
    for dtype, group in (*((dtype, kernels) for dtype in DTYPES), ("int64", ENTRIES)):
        sources = {
            symbol(level, kernel.name, dtype): getattr(
                importlib.import_module(f"npylstm.kernels.{kernel.module}"), kernel.name
            )
            for kernel in group
        }
        (folder / f"{dtype}.o").write_bytes(compile_object(sources, dtype))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
