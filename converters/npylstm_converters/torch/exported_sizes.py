"""What an exported program does not show about sizes: its code may depend on those of the export.

A program that was exported with fixed sizes holds a number computed from them as a constant, and of
``if x.size(1) > 4`` one way only. One with free sizes holds the conditions of its ways.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from npylstm import ModelSpec
from npylstm_converters.torch.nodes import operation_of, place_of
from npylstm_converters.torch.program_inputs import module_tensors, user_inputs

__all__ = ["assumed", "conditions", "number_held", "readable", "with_fixed_steps"]

# Arguments that are axes, shapes (which fix the sizes of a trace by themselves), or options of
# layers. Any other number may be computed from a size.
_OPTIONS = {
    "axis", "axes", "ceil_mode", "correction", "cudnn_enabled", "dilation", "dim", "dim0", "dim1",
    "dims", "end_dim", "eps", "groups", "kernel_size", "momentum", "negative_slope",
    "normalized_shape", "num_groups", "num_layers", "ord", "output_padding", "output_size", "p",
    "padding", "padding_idx", "shape", "size", "start_dim", "stride", "dropout",
}  # fmt: skip
_PLAIN = (0, 1, -1)
_LARGE = 2**31
_SIZE = r"\w+\.size\(\d+\)"
_HARMLESS = [
    re.compile(text) for text in (
        rf"{_SIZE} == \d+", rf"{_SIZE} (>=|!=) [012]", rf"{_SIZE} > [01]", rf"{_SIZE} == {_SIZE}",
        rf"[012] (<=|!=) {_SIZE}", rf"[01] < {_SIZE}",
    )
]  # fmt: skip


def number_held(program: Any) -> str:
    """Return a number of a program that may be computed from a size, with its place, or ``""``."""
    import torch

    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        names = [a.name for a in schema.arguments]
        for name, value in [*zip(names, node.args, strict=False), *node.kwargs.items()]:
            if name in _OPTIONS or (name == "exponent" and value == 2):
                continue
            for number in torch.utils._pytree.tree_leaves(value):
                if type(number) in (int, float) and number not in _PLAIN and abs(number) < _LARGE:
                    return f"{number!r:.20} of {operation_of(node)} in {place_of(node)}"
    return ""


def conditions(program: Any) -> list[str]:
    """Return the conditions on free sizes under which a program was exported: ``x.size(1) > 4``.

    Those that all sizes from 2 on fulfil are torch's own.
    """
    codes = map(readable, getattr(program, "_guards_code", None) or ())
    found = {condition: None for condition in codes if _is_limit(condition)}
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    for node in user_inputs(program, module_tensors(program))[0]:
        for axis, size in enumerate(node.meta["val"].shape):
            limits = ranges.get(str(size))
            if limits is None:
                continue
            text = f"{node.name}.size({axis})"
            low, high = str(limits.lower), str(limits.upper)
            if low.isdigit() and int(low) > 2 and not any(text in known for known in found):
                found[f"{text} >= {low}"] = None
            if high.isdigit() and int(high) < _LARGE:
                found[f"{text} <= {high}"] = None
    return [*found]


def _is_limit(condition: str) -> bool:
    """Whether a condition of torch may exclude sizes from 2 on, or unequal sizes of inputs."""
    return not any(pattern.fullmatch(condition) for pattern in _HARMLESS)


def assumed(spec: ModelSpec, *sentences: str) -> ModelSpec:
    """Return the spec with sentences about what its source does not show."""
    if not sentences:
        return spec
    known = spec.provenance.get("stated") or []
    stated = {"traced": True, "proof": "assumed", "stated": [*known, *sentences]}
    return replace(spec, provenance={**spec.provenance, **stated})


def with_fixed_steps(spec: ModelSpec) -> ModelSpec:
    """Return the spec with a note for each input whose number of steps a trace has fixed."""
    fixed = {
        t.name: f"the trace fixed them at {t.shape[t.time_axis]}, and the model may hold numbers "
        "that were computed from that; convert it again with an example of as many steps as it "
        "is to get"
        for t in spec.inputs
        if t.time_axis is not None and isinstance(t.shape[t.time_axis], int)
    }
    provenance = {**spec.provenance, "fixed_steps": fixed}
    return replace(spec, provenance=provenance) if fixed else spec


def readable(code: str) -> str:
    """Return ``x.size(1) > 4`` for torch's ``L['x'].size()[1] > 4``."""
    code = re.sub(r"L\['(\w+)'\]", r"\1", code)
    return re.sub(r"\.size\(\)\[(\d+)\]", r".size(\1)", code)
