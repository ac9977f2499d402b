"""Round the weights of a model to fewer bits, and measure what that costs."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm.errors import NpylstmError
from npylstm.loading import module
from npylstm.quantization import PROVENANCE, OutputError, measure
from npylstm.spec import ModelSpec
from npylstm.storage import storage_type

__all__ = ["quantize"]


def quantize(
    spec: ModelSpec,
    type: str,
    layers: Iterable[str] | None = None,
    keep: Iterable[str] = (),
    backend: str = "auto",
) -> ModelSpec:
    """Round weights and measure what it costs; see :meth:`npylstm.spec.ModelSpec.quantize`."""
    storage_type(type)  # known
    if spec.dtype != "float32":
        raise NpylstmError(
            f"{spec.name}: expected float32 weights to quantize, got {spec.dtype}; first "
            "model.astype('float32')"
        )
    if stored := [layer.name for layer in spec.layers if layer.stored]:
        raise NpylstmError(
            f"{spec.name}: {stored[0]} is quantized already; quantize the model that it was made of"
        )
    chosen = _chosen(spec, layers, keep)
    made = tuple(n.in_storage(type) if n.name in chosen else n for n in spec.layers)
    small = replace(spec, layers=made)
    errors = _measured(small, backend)
    measured = {o.output: {k: v for k, v in o.to_json().items() if k != "output"} for o in errors}
    return replace(small, provenance={
        **spec.provenance, "proof": _weaker(spec.provenance),
        "stated": [*_listed(spec.provenance), _sentence(type, len(chosen), errors)],
        PROVENANCE: {"cases": len(spec.cases), "outputs": measured},
    })  # fmt: skip


def _chosen(spec: ModelSpec, layers: Iterable[str] | None, keep: Iterable[str]) -> set[str]:
    """Return the names of the layers to quantize."""
    with_matrices = [layer.name for layer in spec.layers if layer.rounded_weights()]
    names = [layer.name for layer in spec.layers]
    chosen = {*with_matrices}
    if layers is not None:
        chosen = _matching("layers", _names("layers", layers), with_matrices)
    chosen -= _matching("keep", _names("keep", keep), names)
    if not chosen:
        known = ", ".join(with_matrices) or "none"
        raise NpylstmError(
            f"{spec.name}: no layer is left to quantize; layers with matrices: {known}"
        )
    return chosen


def _names(argument: str, names: Any) -> list[str]:
    """Return an argument that must be a list of names."""
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    found = [*names] if is_list else []
    if not is_list or not all(isinstance(name, str) for name in found):
        shown = found if is_list else names
        raise NpylstmError(f"{argument}: expected a list of names, got {shown!r:.80}")
    return found


def _matching(argument: str, patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    """Return the names that patterns match; each must match one."""
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            what = "layer with matrices" if argument == "layers" else "layer"
            known = ", ".join(names) or "none"
            raise NpylstmError(
                f"{argument}: no {what} is named {pattern!r}; expected one of {known}"
            )
        found |= matching
    return found


def _measured(spec: ModelSpec, backend: str) -> tuple[OutputError, ...]:
    """Replay the recorded cases."""
    if not spec.cases:
        return ()
    model = module("runtime.model").Model(spec, backend)
    return measure(spec.cases, [model.replay(case) for case in spec.cases])


def _weaker(provenance: Mapping[str, Any]) -> str:
    """Return the evidence for the model; what the user asked for is stated."""
    return "assumed" if provenance.get("proof") == "assumed" else "stated"


def _listed(provenance: Mapping[str, Any]) -> list[str]:
    stated = provenance.get("stated")
    return [s for s in stated if isinstance(s, str)] if isinstance(stated, list) else []


def _sentence(type: str, count: int, errors: Sequence[OutputError]) -> str:
    """Return the statement for the file."""
    text = f"the weights of {count} layer{'s' if count > 1 else ''} are rounded to {type}"
    if not errors:
        return f"{text}; what it costs is not measured"
    costs = ", ".join(
        f"{o.relative_rms:.2%} in {o.output}"
        if math.isfinite(o.relative_rms)
        else f"differences up to {o.max_abs:.2g} in {o.output}"
        for o in errors
    )
    return f"{text}; relative rms of the outputs' errors on recorded cases: {costs}"
