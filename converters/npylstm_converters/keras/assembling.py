"""From a config and weights to a ModelSpec: layers are translated, calls become edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.errors import MixedSamplesError
from npylstm.graph.builder import GraphBuilder
from npylstm.ops.arithmetic import Arithmetic, Reduce
from npylstm.ops.attention import ATTENTION_MASK
from npylstm.ops.base import Operation
from npylstm.ops.pointwise import Identity
from npylstm.ops.shaping import Concatenate, Full, Transpose
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.spec import LayerSpec, TensorSpec
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.keras.config import Writer, dtype_name
from npylstm_converters.keras.external import infer_output_shape
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.graph import Call, RawLayer, Tensor, display_path, safe_name
from npylstm_converters.keras.inlining import FlatGraph, flatten
from npylstm_converters.keras.inputs import read_inputs
from npylstm_converters.keras.integer_types import type_of_call, type_of_input
from npylstm_converters.keras.masks import Flow, created_mask, give_masks, used_masks
from npylstm_converters.keras.operations import integer_type, plan_of
from npylstm_converters.keras.parsing import parse
from npylstm_converters.keras.preprocessing import sentences, without_preprocessing
from npylstm_converters.keras.translating import Options, TranslatedLayers
from npylstm_converters.toolkit.integer_checks import check_behind

__all__ = ["convert_container"]


def convert_container(container: Container, options: Options) -> ModelSpec:
    """Return the ModelSpec of a model with config and weights.

    Raises
    ------
    UnsupportedError
        Lists everything that is not supported.
    FormatError
        If the config or a weight is damaged, or an option names something that does not exist.
    """
    graph, writer, reasons = parse(container.document), container.writer, Reasons()
    for reason in container.foreign:
        reasons.add(reason)
    graph, outside = without_preprocessing(graph, container.vocabulary, reasons)
    layers = TranslatedLayers(graph, container, options, reasons)
    layers.refuse_foreign()
    flat = flatten(graph, layers.raws)
    layers.translate(flat.calls)
    if not reasons:
        give_masks(flat, layers.specs, writer, reasons)
    dtype = layers.dtype()
    if not reasons:  # arrays of an unsupported layer are unused anyway
        layers.check_all_used()
    reasons.raise_if_any()
    operations = {path: spec.layer for path, spec in layers.specs.items()}
    inputs, free_steps = read_inputs(graph, flat, operations, layers.names)
    tensors = {Tensor(name): tensor for name, tensor in zip(graph.inputs, inputs, strict=True)}
    assembly = _Assembly(tensors, flat, layers, writer, dtype)
    for call in flat.calls:
        assembly.call(call)
    names, builder = assembly.outputs(flat.outputs), assembly.builder
    names = [assembly.named(*pair) for pair in zip_longest(names, graph.output_names, fillvalue="")]
    uncalled = [spec.name for spec in assembly.layers.values() if spec.name not in builder.layers]
    if uncalled:
        raise FormatError(f"the model contradicts itself: {', '.join(uncalled)}: never called")
    outputs = builder.finish(names, "{}_again", keep_inputs=True)
    try:
        spec = ModelSpec(
            layers=tuple(builder.layers.values()),
            edges=tuple(builder.edges), inputs=builder.inputs, outputs=outputs,
            name=graph.name, dtype=dtype, provenance=_provenance(container, layers, outside),
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None
    return _with_free_steps(spec) if free_steps else spec


def _provenance(
    container: Container, layers: TranslatedLayers, outside: list[dict[str, Any]]
) -> dict[str, Any]:
    writer = container.writer
    outside = [{**entry, "input": layers.names[entry["input"]]} for entry in outside]
    return {
        "framework": writer.framework,
        "framework_version": writer.version,
        "source_format": container.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [
            f"written by {writer.framework} {writer.version}: {writer.evidence}",
            *container.notes,
            *layers.notes,
            *sentences(outside),
            *_name_conflicts(layers.raws),
            *(
                f"layer {display_path(old)!r} is called {new!r} here"
                for old, new in layers.names.items()
                if display_path(old) != new
            ),
        ],
        "proof": "assumed" if container.assumed else "stated" if container.stated else "proven",
        "stated": [*container.stated, *(f"assumed: {fact}" for fact in container.assumed)],
        "tensors": [entry.to_json() for entry in layers.ledger],
        **({"preprocessing": outside} if outside else {}),
    }


def _name_conflicts(raws: Mapping[str, RawLayer]) -> Iterator[str]:
    """Yield a note for each layer whose name contradicts its class.

    A file may store a subclass under the name of its base.
    """
    for path, raw in raws.items():
        if "revers" in raw.name.lower() and raw.config.get("go_backwards") is False:
            yield (
                f"{display_path(path)}: runs forwards, as the config of this "
                f"{raw.class_name} states; its name states otherwise"
            )


def _with_free_steps(spec: ModelSpec) -> ModelSpec:
    """Return the spec with a free number of steps and a note, if only a call fixed the number."""
    freed = spec.with_free_steps()
    if freed.inputs == spec.inputs:
        return spec
    note = f"{spec.inputs[0]} is the shape of a first call: its steps are free here"
    decisions = [*spec.provenance["decisions"], note]
    return replace(freed, provenance={**spec.provenance, "decisions": decisions})


class _Assembly:
    """A model under construction: edges in the order of computation, masks as tensors."""

    def __init__(
        self,
        inputs: Mapping[Tensor, TensorSpec],
        graph: FlatGraph,
        layers: TranslatedLayers,
        writer: Writer,
        dtype: str,
    ) -> None:
        self.layers = dict(layers.specs)
        self.builder = GraphBuilder(inputs.values(), dtype)
        self.builder.reserve(layers.names.values())
        self._raws, self._names, self._dtype = layers.raws, layers.names, dtype
        self._custom = dict(layers.custom)
        self._major = writer.major
        self._flow: Flow[str] = Flow(graph, writer, self._join)
        self._tensors = {tensor: spec.name for tensor, spec in inputs.items()}
        self._sizes: dict[Tensor, Any] = {}  # calls that compute sizes, and no tensor
        dtypes = {t: dtype_name(self._raws[t.layer].config.get("dtype")) for t in inputs}
        self._types = {t: type_of_input(dtype) for t, dtype in dtypes.items()}  # of integers
        self._current_layer = ""  # the layer in progress

    def find(self, tensor: Tensor) -> str:
        """Return the name of a tensor."""
        if tensor in self._sizes:
            raise UnsupportedError(
                [f"{display_path(tensor.layer)}: the sizes of a tensor are supported as arguments "
                 "of shapes only"]
            )  # fmt: skip
        if tensor not in self._tensors:
            raise FormatError(
                f"model config: {display_path(tensor.layer)} has no output {tensor.output}"
            )
        return self._tensors[tensor]

    def outputs(self, tensors: Sequence[Tensor] | Tensor) -> list[str]:
        """Return the names of tensors, or of all outputs of the call of a single one."""
        if not isinstance(tensors, Tensor):
            return [self.find(tensor) for tensor in tensors]
        key = (tensors.layer, tensors.call)
        return [name for t, name in self._tensors.items() if (t.layer, t.call) == key]

    def named(self, tensor: str, key: str) -> str:
        """Return the name of an output: the key of a dictionary, if there is one."""
        name = safe_name(key)
        if name in ("", tensor):
            return tensor
        return self._add_layer(Identity(), self.builder.unused(name), tensor)

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
        self._types[main] = type_of_call(raw, named, self._types_of(call))
        check = check_behind(named.layer, self._types[main], self._dtype)
        if check is not None:
            made[0] = self._add_helper(check, named.name, made[0], what="integers")
        self._tensors |= {replace(main, output=k): name for k, name in enumerate(made)}

    def _operate(self, call: Call) -> None:
        """Add the layers that compute an operation on tensors."""
        path, name = call.layer, self._names[call.layer]
        times = self._raws[path].times
        values = [self._sizes.get(tensor) for tensor in call.reads]
        reads = ["" if t in self._sizes else self.find(t) for t in call.reads]
        shapes = [self.builder.shapes[tensor] if tensor else () for tensor in reads]
        inner = [(*s[:1], *s[1 + times :]) for s in shapes]
        try:
            plan, results, value = plan_of(
                self._raws[path], call, reads, inner, values, self._types_of(call), self._dtype
            )
        except Refusal as error:
            raise UnsupportedError([f"{display_path(path)}: {error}"]) from None
        if results is None:
            self._sizes[Tensor(path, call.number)] = value
            return
        tensors = dict(plan.tensors)
        for step in plan.steps:
            operation = step.operation
            for _ in range(times):
                operation = TimeDistributed(operation)
            weights = {key: array.astype(self._dtype) for key, array in step.weights.items()}
            is_main = step.made == results[0].number
            what = "" if is_main and not call.number else "again" if is_main else "part"
            own = self.builder.unused(f"{name}.{what}") if what else name
            operands = [tensors[n] for n in step.reads]
            (tensors[step.made],) = self._call(LayerSpec(own, operation, weights), operands)
        for k, result in enumerate(results):
            made = Tensor(path, call.number, k)
            self._tensors[made] = tensors[result.number]
            self._types[made] = integer_type(self._raws[path], call, self._types_of(call), k)

    def _types_of(self, call: Call) -> list[str]:
        """Return the types of what a call reads; sizes are integers."""
        return ["int32" if t in self._sizes else self._types.get(t, "") for t in call.reads]

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
            if layer.layer.is_stricter or layer.layer.masked_inputs:
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
