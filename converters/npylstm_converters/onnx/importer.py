"""From an ONNX model to a ModelSpec."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import npylstm
from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm.arrays import Array
from npylstm.ops.shapes import STEPS
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.files import sha256_of
from npylstm_converters.onnx.fusing import fuse_biases
from npylstm_converters.onnx.graph import OnnxGraph, readable
from npylstm_converters.onnx.inputs import (
    Choice,
    GraphInput,
    batch_choices,
    file_names,
    tensor_specs,
)
from npylstm_converters.onnx.reading import initializers, is_onnx, opset_of, read_model, type_of
from npylstm_converters.onnx.row_products import keep_axes
from npylstm_converters.onnx.runner import OnnxRunner
from npylstm_converters.onnx.translator import Scope, Translator
from npylstm_converters.onnx.values import ConstantTensor
from npylstm_converters.registry import Importer
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.toolkit.state_pairs import state_pairs

__all__ = ["IMPORTER", "convert_model", "from_onnx"]


def from_onnx(source: Any, *, constants: Mapping[str, Any] | None = None) -> ModelSpec:
    """Convert an ONNX model; the onnx package reads it, no runtime is needed.

    Names, order and layout of inputs and outputs are the graph's own.

    Parameters
    ----------
    source
        A path, bytes, or an ``onnx.ModelProto``.
    constants
        Inputs of the graph that are fixed in the converted model, and sizes that are, by name:
        ``{"sr": 16000, "sequence": 512}``.

    Returns
    -------
    ModelSpec
        Without recorded cases; :func:`npylstm_converters.record` adds them.

    Raises
    ------
    UnsupportedError
        Lists every node that is not supported.
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    NpylstmError
        If the onnx package is not installed, or the graph has no input of such a name.

    Examples
    --------
    ::

        spec = from_onnx("silero_vad.onnx", constants={"sr": 16000})
    """
    model = read_model(source)
    spec = convert_model(model, dict(constants or {}))
    if isinstance(source, (str, os.PathLike)):
        return replace(spec, provenance={**spec.provenance, "source_sha256": sha256_of(source)})
    return spec


def convert_model(model: Any, constants: Mapping[str, Any]) -> ModelSpec:
    """Convert a ModelProto; see :func:`from_onnx`."""
    stored = initializers(model.graph)
    inputs, fixed = _inputs(model.graph, stored, constants)
    error: NpylstmError | None = None
    limited: ModelSpec | None = None
    for choice in batch_choices(inputs, model.graph.node):
        conversion = _Conversion(model, stored | fixed, inputs, choice, constants)
        try:
            spec = conversion.spec()
        except UnsupportedError as reason:
            error = error or reason
            continue
        if not conversion.fixes_sizes:
            return spec
        limited = limited or spec
    if limited is not None:
        return limited
    assert error is not None
    raise error


def _inputs(
    graph: Any, stored: Mapping[str, Array], constants: Mapping[str, Any]
) -> tuple[list[GraphInput], dict[str, Array]]:
    """Return the graph's inputs, and those that are fixed."""
    values = [value for value in graph.input if value.name not in stored]
    types = {value.name: type_of(value) for value in values}
    symbols = {d for _, _, dims in types.values() for d in dims if isinstance(d, str)}
    known = {*types, *symbols, STEPS}
    unknown = [name for name in constants if name.rstrip("_") not in known and name not in known]
    if unknown:
        raise NpylstmError(
            f"constants: the graph has no input or size {unknown[0]!r}; it has "
            f"{', '.join([*types, *sorted({*symbols, STEPS})])}"
        )
    inputs, fixed = [], {}
    for name, (kind, dtype, dims) in types.items():
        if name not in constants:
            sizes = (
                int(constants[d]) if isinstance(d, str) and d in constants else d for d in dims
            )
            inputs.append(GraphInput(name, kind, dtype, tuple(sizes)))
            continue
        array = np.asarray(constants[name], dtype)
        one = array.size == 1 and len(dims) != array.ndim
        fixed[name] = array.reshape((1,) * len(dims)) if one else array
    return inputs, fixed


class _Conversion:
    """One attempt, with one choice of the batch's axes."""

    def __init__(
        self, model: Any, arrays: Mapping[str, Array], inputs: Sequence[GraphInput],
        choice: Choice, constants: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._model, self._arrays, self._inputs = model, arrays, inputs
        whole = {n: np.ravel(c) for n, c in constants.items() if np.asarray(c).dtype.kind in "iu"}
        numbers = {name: int(values[0]) for name, values in whole.items() if values.size == 1}
        specs, exported_batch = tensor_specs(inputs, choice, numbers)
        kinds = {tensor.name: tensor.kind for tensor in inputs}
        floats = [a.dtype for a in arrays.values() if a.dtype.kind == "f"]
        floats += [tensor.dtype for tensor in inputs if tensor.kind == "f"]
        dtype = "float64" if np.dtype(np.float64) in floats else "float32"
        names = file_names(inputs, choice, specs)
        self._graph = OnnxGraph(specs, kinds, dtype, exported_batch, names)
        self._outputs = [value.name for value in model.graph.output]

    @property
    def fixes_sizes(self) -> bool:
        """Whether a reshape takes one number for a size that is free in the file; after a run."""
        return self._graph.fixes_sizes

    def spec(self) -> ModelSpec:
        """Translate the graph.

        Raises
        ------
        UnsupportedError
            With all reasons.
        """
        graph, builder, reasons = self._graph, self._graph.builder, Reasons()
        builder.reserve(readable(name) for name in self._outputs)
        scope: Scope = {
            **{name: ConstantTensor(a, (name,)) for name, a in self._arrays.items()},
            **graph.inputs,
        }
        translator = Translator(graph, opset_of(self._model), reasons, self._outputs)
        translator.run(self._model.graph.node, scope)
        reasons.raise_if_any()
        made = []
        for name in self._outputs:
            graph.name = readable(name)
            if scope.get(name) is None:
                raise FormatError(f"output {name!r}: no node makes it")
            try:
                made.append(graph.tensor(scope[name]).name)
            except Refusal as error:
                reasons.add(f"output {name}: {error}")
        reasons.raise_if_any()
        outputs = self._named(builder.simplify(builder.finish(made, keep_inputs=True)))
        try:
            spec = ModelSpec(
                tuple(builder.layers.values()), tuple(builder.edges), builder.inputs, outputs,
                name=self._model.graph.name or "model", dtype=builder.dtype,
                provenance=self._provenance(),
            )  # fmt: skip
            return replace(spec, state_pairs=state_pairs(spec))
        except FormatError as error:
            raise UnsupportedError([str(error)]) from None

    def _named(self, made: Sequence[str]) -> tuple[str, ...]:
        """Make the graph shorter, and give the outputs the graph's names."""
        builder = self._graph.builder
        kept = keep_axes(builder, made)
        made = builder.simplify([kept.get(name, name) for name in made])
        renamed = fuse_biases(builder, made, self._graph.sources)
        current = [*builder.simplify([renamed.get(name, name) for name in made])]
        names = [readable(name) for name in self._outputs]
        for k, wanted in enumerate(names):
            if current[k] != wanted:
                renamed = self._rename(current[k], wanted)
                current = [renamed.get(name, name) for name in current]
        return tuple(names)

    def _rename(self, name: str, wanted: str) -> dict[str, str]:
        """Give a tensor another name; return the new names of tensors by their former names."""
        builder = self._graph.builder
        makers = [edge for edge in builder.edges if edge.name == name]
        own = {readable(n) for n in self._outputs}
        calls = [edge.layer for edge in builder.edges]
        if makers and calls.count(makers[0].layer) == 1 and name not in own:
            renamed = builder.rename(makers[0].layer, wanted)
            if makers[0].layer in self._graph.sources:
                self._graph.sources[wanted] = self._graph.sources.pop(makers[0].layer)
            return renamed
        builder.add_named(wanted, name)
        return {}

    def _provenance(self) -> dict[str, Any]:
        model, builder = self._model, self._graph.builder
        entries = []
        for layer in builder.layers.values():
            for source, parts in self._graph.sources.get(layer.name, {}).items():
                array = self._arrays.get(source)
                shape = () if array is None else array.shape
                inside = tuple(f"{part}/" for part in parts)
                weights = tuple(w for w in layer.weights if not parts or w.startswith(inside))
                entries.append(Entry(source, shape, layer.name, weights))
        producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
        return {
            "framework": "ONNX",
            "framework_version": f"operator set {opset_of(model)}",
            "source_format": f"ONNX, written by {producer or 'an unknown program'}",
            "converter": f"npylstm {npylstm.__version__}",
            "decisions": self._decisions(),
            "tensors": [entry.to_json() for entry in entries],
            "proof": "proven",
        }

    def _decisions(self) -> list[str]:
        return [f"sizes of {tensor}" for tensor in self._graph.builder.inputs]


class _OnnxImporter(Importer):
    name = "onnx"
    options = ("constants",)

    def accepts(self, source: Any, head: bytes) -> bool:
        if head:
            return is_onnx(head)
        return type(source).__name__ == "ModelProto"

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_onnx(source, **options)

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> OnnxRunner:
        return OnnxRunner(source, spec, options.get("constants") or {})


IMPORTER = _OnnxImporter()
