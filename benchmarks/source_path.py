"""Count how a conversion walks through the source: ``python benchmarks/source_path.py FILE``.

Functions of ``npylstm_converters`` are listed in the order of their first calls; comprehensions and
lambdas are not counted. A file is re-entered where this list leads back to it from another file.
A weight is copied where it shares no memory with an array that the HDF5 reader returned.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import npylstm_converters as nc
import numpy as np
from npylstm_converters.keras.hdf5 import Dataset

ROOT = Path(nc.__file__).parent


def functions(source: str) -> list[tuple[str, str]]:
    """Return file and name of each function that a conversion calls, in order of the first call."""
    calls: dict[tuple[str, str], None] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and ROOT in Path(code.co_filename).parents and code.co_name[0] != "<":
            calls[str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname] = None

    nc.convert(source)  # imports are not counted
    sys.setprofile(profile)
    try:
        nc.convert(source)
    finally:
        sys.setprofile(None)
    return list(calls)


def copied(source: str) -> tuple[int, int]:
    """Return how many weights of a conversion from HDF5 are copies, and how many there are."""
    arrays: list[Any] = []
    read = Dataset.read

    def kept(dataset: Dataset) -> Any:
        arrays.append(read(dataset))
        return arrays[-1]

    Dataset.read = kept  # type: ignore[method-assign]
    try:
        spec = nc.convert(source)
    finally:
        Dataset.read = read  # type: ignore[method-assign]
    weights = [weight for layer in spec.layers for weight in layer.weights.values()]
    copies = [w for w in weights if not any(np.shares_memory(w, array) for array in arrays)]
    return len(copies), len(weights)


def main() -> None:
    """Print the way of a source, and the counts."""
    way = functions(sys.argv[1])
    visits: list[str] = []
    for file, name in way:
        if not visits or visits[-1] != file:
            visits.append(file)
            print(f"\n{'again ' if file in visits[:-1] else ''}{file}:", end="")
        print(f" {name}", end="")
    files = len(set(visits))
    copies, weights = copied(sys.argv[1])
    print(f"\n\n{len(way)} functions in {files} files, {len(visits) - files} re-entries")
    print(f"{copies} of {weights} weights are copies")


if __name__ == "__main__":
    main()
