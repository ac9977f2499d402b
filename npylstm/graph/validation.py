"""Check a spec: names, weights, shapes along the graph, and recorded cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.ops.shapes import BATCH, Shape, batch_axes, format_shape

if TYPE_CHECKING:
    from npylstm.spec import ModelSpec

__all__ = ["find_problems"]

DTYPES = ("float32", "float64")

_TENSOR = re.compile(r"[^\x00-\x1f\\]+")


def find_problems(spec: ModelSpec, shapes: dict[str, Shape]) -> list[str]:
    """Return every inconsistency of a spec, and infer the shapes of its tensors into ``shapes``."""
    problems = [*_local_problems(spec), *_infer_shapes(spec, shapes)]
    return problems or [*_case_problems(spec, shapes)]


def _local_problems(spec: ModelSpec) -> Iterator[str]:
    if spec.dtype not in DTYPES:
        yield f"dtype: expected one of {', '.join(DTYPES)}, got {spec.dtype!r}"
        return
    names = [layer.name for layer in spec.layers]
    twins = [name for name, count in Counter(names).items() if count > 1]
    yield from (f"layer name {name!r}: used twice" for name in twins)
    for layer in spec.layers:
        yield from layer.problems(spec.dtype)
    called = {edge.layer for edge in spec.edges}
    yield from (f"{name}: never called" for name in names if name not in called)
    if not spec.inputs or not spec.outputs:
        yield "a model needs at least one input and one output"
    for tensor in spec.inputs:
        if not _TENSOR.fullmatch(tensor.name) or {"", ".", ".."} & {*tensor.name.split("/")}:
            yield f"input name {tensor.name!r}: empty, or no path"
        if tensor.shape.count(BATCH) > 1:
            yield f"{tensor}: expected at most one axis called {BATCH!r}"
        sizes = [d for d in tensor.shape if isinstance(d, int)]
        yield from (f"{tensor}: expected positive sizes, got {d}" for d in sizes if d < 1)


def _infer_shapes(spec: ModelSpec, shapes: dict[str, Shape]) -> Iterator[str]:
    """Infer the shapes of all tensors into ``shapes``; yield problems."""
    layers = {layer.name: layer for layer in spec.layers}
    shapes |= {t.name: t.shape for t in spec.inputs}
    if len(shapes) < len(spec.inputs):
        yield "input names: used twice"
    for edge in spec.edges:
        missing = [t for t in edge.inputs if t not in shapes]
        if edge.layer not in layers or missing:
            what = f"tensor {missing[0]!r}" if missing else f"layer {edge.layer!r}"
            yield f"{edge.layer}: {what} is not there when it is needed"
            return  # every later edge would be reported, too
        try:
            made = layers[edge.layer].layer.output_shapes([shapes[t] for t in edge.inputs])
        except NpylstmError as error:
            yield f"{edge.layer}: {error}"
            return
        if len(made) != len(edge.outputs) or any(t in shapes for t in edge.outputs):
            yield f"{edge.layer}: expected {len(made)} new outputs, got {list(edge.outputs)}"
            return
        paired = [shape for shape in made if batch_axes(shape) > 1]
        if paired:
            yield f"{edge.layer}: {format_shape(paired[0])} would pair sample with sample"
            return
        shapes |= dict(zip(edge.outputs, made, strict=True))
    for name, output in spec.state_pairs:
        same = shapes.get(name) == shapes.get(output)
        if name not in {t.name for t in spec.inputs} or output not in spec.outputs or not same:
            yield f"state_pairs: {name!r}, {output!r}: expected an input and an output of one shape"
    missing = [t for t in spec.outputs if t not in shapes]
    yield from (f"output {t!r}: no such tensor" for t in missing)
    if len(set(spec.outputs)) < len(spec.outputs):
        yield f"outputs: used twice in {list(spec.outputs)}"


def _case_problems(spec: ModelSpec, shapes: Mapping[str, Shape]) -> Iterator[str]:
    states: dict[str, Shape] = {
        f"{layer}/{name}": (BATCH, *shape)
        for layer, entries in spec.state_shapes().items()
        for name, shape in entries.items()
    }
    for number, case in enumerate(spec.cases):
        state = {f"{k}/{n}": a for k, entries in case.state.items() for n, a in entries.items()}
        groups: tuple[tuple[str, Mapping[str, Array], Mapping[str, Shape]], ...] = (
            ("input", case.inputs, {t.name: t.shape for t in spec.inputs}),
            ("output", case.outputs, {t: shapes[t] for t in spec.outputs}),
            ("state", state, states if case.state else {}),
        )
        if case.lengths is not None and case.lengths.dtype.kind not in "iu":
            yield f"case/{number}/lengths: expected integers, got {case.lengths.dtype}"
        sizes: dict[str, int] = {}
        for kind, arrays, wanted in groups:
            if set(arrays) != set(wanted):
                yield f"case/{number}/{kind}: expected {sorted(wanted)}, got {sorted(arrays)}"
                continue
            for name, array in arrays.items():
                if not _fits(array.shape, wanted[name], sizes):
                    yield (
                        f"case/{number}/{kind}/{name}: expected shape "
                        f"{format_shape(wanted[name])}, got {array.shape}"
                    )
        if case.lengths is not None and case.lengths.shape != (sizes.get(BATCH),):
            yield (
                f"case/{number}/lengths: expected shape ({sizes.get(BATCH)},), "
                f"got {case.lengths.shape}"
            )


def _fits(actual: tuple[int, ...], shape: Shape, sizes: dict[str, int]) -> bool:
    """Whether an actual shape fits; a symbol keeps the first size that it had."""
    if len(actual) != len(shape):
        return False
    known = (
        sizes.setdefault(d, n) if isinstance(d, str) else d
        for n, d in zip(actual, shape, strict=True)
    )
    return tuple(known) == actual
