"""Converts calls of layers to edges, and masks to tensors of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npylstm import FormatError, UnsupportedError
from npylstm.errors import MixedSamplesError
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.attention import ATTENTION_MASK
from npylstm.ops.base import Operation
from npylstm.ops.external import External
from npylstm.ops.shaping import Concatenate, Full, Transpose
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.spec import LayerSpec, TensorSpec
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.external import infer_output_shape
from npylstm_converters.keras.graph import Call, RawLayer, Tensor, display_path
from npylstm_converters.keras.mask_flow import Flow, Masks
from npylstm_converters.keras.masks import created_mask, used_masks
from npylstm_converters.keras.operations import plan_of

__all__ = ["Wiring"]


class Wiring:
    """A model under construction: edges in the order of computation.

    Parameters
    ----------
    inputs
        The model's inputs.
    raws, layers, names
        Layers by path: from the config, translated, and their names in the spec.
    custom
        Those that call a function of the user, by path.
    masks
        The masks in the config.
    dtype
        The model's dtype.
    """

    def __init__(
        self,
        inputs: Mapping[Tensor, TensorSpec],
        raws: Mapping[str, RawLayer],
        layers: Mapping[str, LayerSpec],
        names: Mapping[str, str],
        custom: Mapping[str, External],
        masks: Masks,
        dtype: str,
    ) -> None:
        self.layers = dict(layers)
        self.builder = GraphBuilder(inputs.values(), dtype)
        self.builder.reserve(names.values())
        self._raws, self._names, self._dtype = raws, names, dtype
        self._custom = dict(custom)
        self._major = masks.writer.major
        self._flow: Flow[str] = Flow(raws, masks, self._join)
        self._tensors = {tensor: spec.name for tensor, spec in inputs.items()}
        self._current_layer = ""  # the layer in progress

    def find(self, tensor: Tensor) -> str:
        """Return the name of a tensor."""
        if tensor not in self._tensors:
            raise FormatError(
                f"model config: {display_path(tensor.layer)} has no output {tensor.output}"
            )
        return self._tensors[tensor]

    def all_outputs(self, tensor: Tensor) -> list[str]:
        """Return the names of all outputs of a call."""
        key = (tensor.layer, tensor.call)
        return [name for t, name in self._tensors.items() if (t.layer, t.call) == key]

    def call(self, call: Call) -> None:
        """Add a call."""
        if self._raws[call.layer].is_operation:
            self._operate(call)
            return
        raw, named = self._raws[call.layer], self.layers[call.layer]
        self._current_layer = named.name
        pairs = call.options.get("attention_mask", ())
        others = (t for k, ts in call.options.items() if k != "attention_mask" for t in ts)
        reads = [self.find(t) for t in (*call.inputs, *others)]
        told = self._flow.has_mask_argument(call)
        obeys = used_masks(raw, named.layer, call, self._flow.given(call), self._major, told)
        for k in named.layer.masked_inputs:
            if k == ATTENTION_MASK:  # only a call has this mask
                reads += map(self.find, pairs)
            if k == ATTENTION_MASK or "mask" in call.options:
                continue
            # A shared layer may also read a tensor without a mask: then the mask is all true.
            mask = obeys.get(k) or self._all_count(reads[k], named.name)
            if named.layer.time_axis == 0:
                mask = self._add_helper(Transpose((1, 0)), named.name, mask)
            reads.append(mask)
        if call.layer in self._custom:
            named = self._with_output_shape(call.layer, named, reads)
        made = list(self._call(named, reads, call.number + 1))
        own = created_mask(raw, named.layer, call, self._major)
        if own and "mask" in call.options:  # softmax with a mask passes it on
            ((source, _),) = own
            self._flow.make(call, self.find(source))
        elif own:
            self._flow.make(call, made.pop())
        else:
            self._flow.propagate(raw, named.layer, call)
        main = Tensor(call.layer, call.number)
        self._tensors |= {replace(main, output=k): name for k, name in enumerate(made)}

    def _operate(self, call: Call) -> None:
        """Add the layers that compute an operation on tensors."""
        reads = [self.find(t) for t in call.reads]
        path, name = call.layer, self._names[call.layer]
        times = self._raws[path].times
        shapes = [self.builder.shapes[tensor] for tensor in reads]
        try:
            plan = plan_of(self._raws[path], call, [(*s[:1], *s[1 + times :]) for s in shapes])
        except Refusal as error:
            raise UnsupportedError([f"{display_path(path)}: {error}"]) from None
        tensors = list(reads)
        for k, step in enumerate(plan.steps):
            operation = step.operation
            for _ in range(times):
                operation = TimeDistributed(operation)
            operands = [tensors[n] for n in step.reads]
            if k < len(plan.steps) - 1:
                made = self._add_helper(operation, name, *operands, what="part")
            elif call.number:
                made = self._add_helper(operation, name, *operands, what="again")
            else:
                made = self._add_layer(operation, name, *operands)
            tensors.append(made)
        self._tensors[Tensor(path, call.number)] = tensors[-1]

    def _with_output_shape(self, path: str, named: LayerSpec, reads: Sequence[str]) -> LayerSpec:
        """Return the layer with the output shape of its custom function."""
        layer = self._custom[path]
        try:
            shapes = [self.builder.shapes[name] for name in reads]
            measured = infer_output_shape(layer, shapes, named.weights, self._dtype)
        except Refusal as error:
            raise UnsupportedError([f"{display_path(path)}: {error}"]) from None
        if layer.sizes not in ((), measured.sizes):
            raise UnsupportedError(
                [f"{display_path(path)}: gives another shape when it is called again"]
            )
        self._custom[path] = measured
        self.layers[path] = replace(named, layer=measured)
        return self.layers[path]

    def _call(self, layer: LayerSpec, reads: Sequence[str], number: int = 1) -> tuple[str, ...]:
        try:
            return self.builder.call(layer, reads, number)
        except MixedSamplesError as error:
            raise UnsupportedError([f"{layer.name}: {error}"]) from None
        except FormatError as error:
            if layer.layer.accepts_fewer_shapes or layer.layer.masked_inputs:
                raise UnsupportedError([f"{layer.name}: {error}"]) from None
            raise FormatError(f"the model contradicts itself: {layer.name}: {error}") from None

    def _add_helper(self, operation: Operation, near: str, *reads: str, what: str = "mask") -> str:
        """Add a helper layer that computes a mask or a part of an operation."""
        return self._add_layer(operation, self.builder.unused(f"{near}.{what}"), *reads)

    def _add_layer(self, operation: Operation, name: str, *reads: str) -> str:
        """Add a layer without weights, call it and return its output."""
        return self._call(LayerSpec(name, operation), reads)[0]

    def _all_count(self, tensor: str, near: str) -> str:
        rank = len(self.builder.shapes[tensor])
        sizes = tuple((0, axis) for axis in range(rank - 1))
        return self._add_helper(Full(sizes, 1.0), near, tensor)

    def _join(self, how: str, several: Sequence[str]) -> str:
        near = self._current_layer
        if how == "steps":
            return self._add_helper(Concatenate(1), near, *several)
        if how == "any":
            rank = len(self.builder.shapes[several[0]])
            if rank < 3:
                return several[0]
            return self._add_helper(Reduce("max", tuple(range(2, rank))), near, several[0])
        if len(set(several)) == 1:
            return several[0]
        operation = "multiply" if how == "and" else "maximum"
        return self._add_helper(Arithmetic(operation), near, *several)
