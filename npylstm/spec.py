"""ModelSpec: a whole model, immutable and validated.

A spec is a graph. Tensors have names. A model input has its own name. The outputs of a layer are
named after the layer (``lstm``, and ``lstm/h``, ``lstm/c`` where it returns its state). An edge
is one call of a layer, with its input and output tensors. Edges are in topological order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from npylstm.errors import FormatError
from npylstm.graph.case import LONGEST_REPR, Case
from npylstm.graph.cutting import subgraph, with_free_steps
from npylstm.graph.parts import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm.graph.validation import find_problems
from npylstm.loading import module
from npylstm.ops.shapes import BATCH, Shape
from npylstm.printable import clipped

if TYPE_CHECKING:
    from npylstm.quantization import Quantization

__all__ = [
    "FORMAT_VERSION", "RESERVED", "Case", "Edge", "LayerSpec", "ModelSpec", "TensorSpec",
]  # fmt: skip

FORMAT_VERSION = 2


@dataclass(frozen=True, eq=False, repr=False)
class ModelSpec:
    """A model: layers, the graph that connects them, and provenance.

    Two specs are equal if all their fields are equal, recorded cases and provenance included.
    Weights are compared bit by bit, provenance as JSON (a tuple equals a list).

    Parameters
    ----------
    layers, edges
        In topological order.
    inputs
        Names and shapes; ``"batch"`` marks the batch axis. All samples share an input without one.
    outputs
        Names of the tensors that the model returns.
    name
        For messages and reports.
    dtype
        ``"float32"`` or ``"float64"``, of all weights.
    provenance
        JSON values: framework, its version, the source's sha256, choices made in the conversion.
    cases
        Recorded runs of the framework.
    state_pairs
        An input and an output of one shape for each state that the graph takes and returns: in a
        stream, the output of one call is the input of the next.

    Raises
    ------
    FormatError
        With every inconsistency.

    Examples
    --------
    >>> import numpy as np
    >>> from npylstm.ops.dense import Dense
    >>> weights = {"kernel": np.float32([[2.0], [3.0]]), "bias": np.float32([1.0])}
    >>> dense = LayerSpec("dense", Dense(features=2, units=1), weights)
    >>> spec = ModelSpec.chain([dense], TensorSpec("x", ("batch", 2)))
    >>> spec["dense"].weights["bias"]
    array([1.], dtype=float32)
    """

    layers: tuple[LayerSpec, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    name: str = "model"
    dtype: str = "float32"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    state_pairs: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, Shape] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {}
        object.__setattr__(self, "shapes", MappingProxyType(shapes))
        problems = find_problems(self, shapes)
        try:
            json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, TypeError) as error:  # UnicodeEncodeError is a ValueError
            problems.append(f"spec: a name or value is not UTF-8 JSON: {type(error).__name__}")
        if problems:
            raise FormatError("; ".join(problems))

    @classmethod
    def chain(cls, layers: Iterable[LayerSpec], input: TensorSpec, **others: Any) -> ModelSpec:
        """Return the model of layers in sequence.

        Parameters
        ----------
        layers
            Each reads the first output of the one before.
        input
            The input of the first layer.
        **others
            Further arguments of :class:`ModelSpec`: ``name``, ``dtype`` and so on.

        Returns
        -------
        ModelSpec
            Its outputs are all those of the last layer.
        """
        layers = tuple(layers)
        edges: list[Edge] = []
        tensor = input.name
        for layer in layers:
            edges.append(Edge.call(layer, tensor))
            tensor = edges[-1].outputs[0]
        outputs = edges[-1].outputs if edges else (tensor,)
        return cls(layers, tuple(edges), (input,), outputs, **others)

    def __getitem__(self, name: str) -> LayerSpec:
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers)
        raise KeyError(f"no layer {name!r}, the model has: {known}")

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(map(str, tensors)) for tensors in (self.inputs, self.output_specs)
        )
        text = (
            f"{self.name!r}: {len(self.layers)} layers, {self.parameters:,} parameters, "
            f"{self.dtype}, {inputs} -> {outputs}"
        )
        return f"<npylstm.ModelSpec {clipped(text, LONGEST_REPR - 21)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelSpec):
            return NotImplemented
        mine, theirs = (
            (json.loads(json.dumps(spec.to_json())), spec.layers, spec.cases)
            for spec in (self, other)
        )
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.name, self.dtype, self.layers, self.edges, self.inputs, self.outputs))

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelSpec, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    def _repr_html_(self) -> str:
        from npylstm.parity.page.notebook import model_html

        return model_html(self)

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Names and shapes of the outputs."""
        return tuple(TensorSpec(name, self.shapes[name]) for name in self.outputs)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(layer.parameters for layer in self.layers)

    def state_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return the shapes of the carried state.

        Returns
        -------
        dict
            ``{call: {state: shape}}``, without the batch axis. A call has the name of its main
            output: the layer's name, or ``lstm#2`` for a second call. A call carries no state if
            its initial state is from the graph, or if its sequences are not the samples of the
            batch: it starts from zeros. In a model without a batch, one sequence is the sample.
        """
        layers = {layer.name: layer.layer for layer in self.layers}
        shapes = {
            e.name: layers[e.layer].state_shapes()
            for e in self.edges
            if not layers[e.layer].initial_states(e.inputs)
        }
        batches = {
            e.name: layers[e.layer].batch_size(self.shapes[e.inputs[0]])
            for e in self.edges
            if shapes.get(e.name)
        }
        sample = BATCH if any(BATCH in t.shape for t in self.inputs) else 1
        return {name: shapes[name] for name, batch in batches.items() if batch == sample}

    def count_samples(self, inputs: Mapping[str, Any]) -> int:
        """Return the number of samples of a model's inputs.

        Parameters
        ----------
        inputs
            Arrays by name.

        Returns
        -------
        int
            The size of the batch axis; 1 if no input has one.
        """
        for tensor in self.inputs:
            if BATCH in tensor.shape:
                return int(inputs[tensor.name].shape[tensor.shape.index(BATCH)])
        return 1

    def astype(self, dtype: str) -> ModelSpec:
        """Return the same model with weights of another dtype.

        Parameters
        ----------
        dtype
            ``"float32"`` or ``"float64"``.

        Returns
        -------
        ModelSpec

        Raises
        ------
        FormatError
            For any other dtype.
        """
        dtype = str(np.dtype(dtype))
        layers = tuple(
            replace(
                layer, weights={k: w.astype(dtype, copy=False) for k, w in layer.weights.items()}
            )
            for layer in self.layers
        )
        return replace(self, layers=layers, dtype=dtype)

    def quantize(
        self, type: str, layers: Iterable[str] | None = None, keep: Iterable[str] = ()
    ) -> ModelSpec:
        """Return the same model with weights in fewer bits, and measure what that costs.

        Matrices of products, and tables of embeddings, are rounded; biases and all else stay. The
        recorded cases are replayed: :attr:`quantization` of the result holds the errors. Twice
        that is the budget by which :meth:`npylstm.Model.verify` judges the model from then on.

        Parameters
        ----------
        type
            ``"int8"``: 8 bits, with a scale for each column. Recurrent and dense layers compute
            exact sums of integers; their inputs are rounded to 16 bits. ``"bfloat16"``: the upper
            half of float32. ``"int16"``: 16 bits with a scale for each column, computed in
            float32: for smaller files.
        layers
            Names of the layers to round, ``*`` allowed; None: all that have matrices.
        keep
            Names of layers that stay as they are, ``*`` allowed.

        Returns
        -------
        ModelSpec

        Raises
        ------
        NpylstmError
            If a name belongs to no layer, no layer is left, or the model is not in float32 or is
            quantized already.
        FormatError
            If the type is unknown or cannot hold a layer's numbers.

        Examples
        --------
        >>> import npylstm
        >>> spec = npylstm.load("models/sine_keras/sine.npz").spec
        >>> spec.quantize("int8", keep=["dense*"])["lstm"].stored["W_i"].storage
        'int8'
        """
        made: ModelSpec = module("quantizing").quantize(self, type, layers, keep)
        return made

    @property
    def quantization(self) -> Quantization | None:
        """How the weights are stored, and what that costs; None if they are not quantized."""
        found: Quantization | None = module("quantization").quantization_of(self)
        return found

    def decoded(self) -> ModelSpec:
        """Return the same model, computed in floats: the decoded weights are its weights.

        Returns
        -------
        ModelSpec
        """
        return replace(self, layers=tuple(replace(layer, stored={}) for layer in self.layers))

    def with_cases(self, cases: Iterable[Case]) -> ModelSpec:
        """Return the same model with other recorded cases.

        Parameters
        ----------
        cases
            They replace the model's.

        Returns
        -------
        ModelSpec

        Raises
        ------
        FormatError
            If a case does not fit the model.
        """
        return replace(self, cases=tuple(cases))

    def subgraph(self, inputs: Sequence[str], outputs: Sequence[str]) -> ModelSpec:
        """Return a part of the model: an encoder, one step of a decoder, a layer's features.

        Parameters
        ----------
        inputs, outputs
            Tensors by name: model inputs, outputs of layers (``"lstm"``, ``"lstm/h"``).

        Returns
        -------
        ModelSpec
            With these inputs and outputs, the layers between them and no cases. A fixed number of
            steps becomes variable if the layers allow it.

        Raises
        ------
        FormatError
            If a name is unknown, an output needs another input, or an input is unused.
        """
        return subgraph(self, inputs, outputs)

    @property
    def fixed_steps(self) -> dict[str, str]:
        """Inputs whose number of steps a trace has fixed, with the reason.

        Numbers that were computed from it are constants of the model.
        """
        stored = self.provenance.get("fixed_steps")
        known = stored if isinstance(stored, dict) else {}
        return {t.name: str(known[t.name]) for t in self.inputs if t.name in known}

    def with_free_steps(self) -> ModelSpec:
        """Return the same model for any number of steps, if the layers allow it.

        Returns
        -------
        ModelSpec
            Without cases. The sizes of all time axes become symbols.

        Raises
        ------
        UnsupportedError
            With the layer that works for its number of steps only, or the input whose number of
            steps may be in the model's numbers (:attr:`fixed_steps`).
        """
        return with_free_steps(self)

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values.

        Returns
        -------
        dict
            The document of the model file: everything but weights and cases.
        """
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "dtype": self.dtype,
            "inputs": [
                {"name": t.name, "shape": list(t.shape), **({"integer": True} if t.integer else {})}
                for t in self.inputs
            ],
            "outputs": list(self.outputs),
            "layers": [layer.to_json() for layer in self.layers],
            "edges": [
                {"layer": e.layer, "inputs": list(e.inputs), "outputs": list(e.outputs)}
                for e in self.edges
            ],
            "provenance": dict(self.provenance),
            **({"state_pairs": [*map(list, self.state_pairs)]} if self.state_pairs else {}),
        }
