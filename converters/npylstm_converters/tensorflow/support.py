"""The operations in docs/tensorflow.md: ``python -m npylstm_converters.tensorflow.support``."""

from __future__ import annotations

import textwrap

from npylstm_converters.tensorflow.rows import ROWS

__all__ = ["operation_table"]

_WIDTH = 120


def operation_table() -> str:
    """Return the names of all operations, as lines of text.

    Returns
    -------
    str
        The names in order, separated by commas.
    """
    return textwrap.fill(", ".join(sorted([*ROWS, "Const", "VarHandleOp"])) + ".", _WIDTH)


if __name__ == "__main__":
    print(operation_table())
