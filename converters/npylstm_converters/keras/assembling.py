"""From a config and weights to a ModelSpec: layers are translated, calls become edges."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec
from npylstm.ops.base import Operation
from npylstm.ops.external import External, Function
from npylstm.spec import LayerSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.keras.attention import (
    as_called,
    is_attention,
    supports_argument,
    supports_tensor,
    with_positional_inputs,
)
from npylstm_converters.keras.config import dtype_name
from npylstm_converters.keras.external import external
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.graph import (
    PATH_SEPARATOR,
    Call,
    Graph,
    RawLayer,
    Tensor,
    display_path,
    safe_names,
)
from npylstm_converters.keras.inlining import inline
from npylstm_converters.keras.inputs import is_embedding_input, is_first_call_shape, read_inputs
from npylstm_converters.keras.layers import TRANSLATORS, translate
from npylstm_converters.keras.legacy import LegacyStore
from npylstm_converters.keras.lora import parts_of
from npylstm_converters.keras.mask_flow import Flow, Masks, mask_races
from npylstm_converters.keras.masks import (
    Sources,
    created_mask,
    joined_sources,
    split_masks,
    used_masks,
)
from npylstm_converters.keras.operations import keeps_integers, refuse_unknown
from npylstm_converters.keras.parsing import parse
from npylstm_converters.keras.weights import Store
from npylstm_converters.keras.wiring import Wiring
from npylstm_converters.ledger import Entry, became

__all__ = ["Options", "convert_container"]


@dataclass(frozen=True)
class Options:
    """Options of the user for one conversion.

    Attributes
    ----------
    allow_unused
        Paths of arrays that may stay unused.
    custom
        NumPy functions for custom layers, by class or by layer.
    """

    allow_unused: tuple[str, ...] = ()
    custom: Mapping[str, Function] = field(default_factory=dict)


def convert_container(container: Container, options: Options = Options()) -> ModelSpec:
    """Return the ModelSpec of a model with config and weights.

    Raises
    ------
    UnsupportedError
        Lists everything that is not supported.
    FormatError
        If the config or a weight is damaged, or an option names something that does not exist.
    """
    graph = parse(container.document)
    reasons = Reasons()
    for reason in container.foreign:
        reasons.add(reason)
    parts = _Translation(graph, container, options, reasons)
    if parts.foreign():
        parts.translate(frozenset())
        reasons.raise_if_any()
    calls, outputs, claims, steps = inline(graph)
    given_masks, calls, claimed = split_masks(graph, calls, outputs, claims)
    calls = [with_positional_inputs(parts.raws.get(call.layer), call) for call in calls]
    parts.translate(frozenset(call.layer for call in calls))
    layers = parts.layers
    parts.apply_call_arguments(calls)
    for call in calls:
        raw = parts.raws.get(call.layer)
        for problem in () if raw and raw.is_operation else _problems(call, raw, layers):
            reasons.add(f"{display_path(call.layer)}: {problem}")
    for name in graph.inputs:
        dtype = dtype_name(graph.layer(name).config.get("dtype"))
        readers = [layers.get(c.layer) for c in calls if Tensor(name) in c.reads]
        ids = all(made is None or is_embedding_input(made.layer) for made in readers)
        if dtype not in (None, "float32", "float64") and not (ids and dtype in ("int32", "int64")):
            reasons.add(f"{name}: inputs of dtype {dtype!r} are not supported")
        elif dtype in ("int32", "int64") and container.writer.major < 3:
            for path in _integer_operations(Tensor(name), calls, parts.raws):
                reasons.add(f"{display_path(path)}: TensorFlow computes it with integers")
    masks = Masks(container.writer, given_masks, dict(claimed), steps, {*graph.models()})
    if not reasons:
        _mask_layers(masks, calls, parts, reasons)
    arrays = {str(w.dtype) for layer in layers.values() for w in layer.weights.values()}
    if len(arrays) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(arrays))}")
    if "float64" in arrays:
        for path, named in layers.items():
            if is_attention(parts.raws[path], named.layer):
                wide: dict[str, Any] = {"mask_in_float32": False}
                layers[path] = replace(named, layer=replace(named.layer, **wide))
    if not reasons:  # arrays of an unsupported layer are unused anyway
        parts.check_all_used()
    reasons.raise_if_any()
    return _assemble(graph, calls, outputs, masks, parts, arrays.pop() if arrays else "float32")


def _integer_operations(
    tensor: Tensor, calls: Sequence[Call], raws: Mapping[str, RawLayer]
) -> Iterator[str]:
    """Yield operations downstream of an integer input that TensorFlow computes in integers."""
    whole = {tensor}
    for call in calls:
        raw = raws.get(call.layer)
        if raw is None or not raw.is_operation or not whole & {*call.reads}:
            continue
        if not keeps_integers(raw):
            yield call.layer
        whole.add(Tensor(call.layer, call.number))


def _problems(call: Call, raw: RawLayer | None, layers: Mapping[str, LayerSpec]) -> Iterator[str]:
    """Yield a message for each unsupported part of a call."""
    if call.problem:
        yield call.problem
    if call.numbers:
        yield f"is called with numbers {call.numbers}"
    if raw is None or call.layer not in layers:
        return
    layer = layers[call.layer].layer
    for option in call.options:
        if not supports_tensor(raw, layer, option):
            yield f"is called with {option}=a tensor"
    for argument, value in call.arguments.items():
        if not supports_argument(raw, layer, argument):
            yield f"is called with {argument}={value!r:.60}"
    if call.number and layer.stateful:
        yield "is stateful and called twice"


def _mask_layers(
    masks: Masks, calls: Sequence[Call], parts: _Translation, reasons: Reasons
) -> None:
    """Give a mask input to each layer that reads a masked tensor in any of its calls."""
    major, layers = masks.writer.major, parts.layers
    flow: Flow[Sources] = Flow(parts.raws, masks, joined_sources)
    wanted: dict[str, set[int]] = {}
    for call in calls:
        raw = parts.raws[call.layer]
        if raw.is_operation:  # its output has no mask
            if major < 3 and any(t in flow.attached for t in call.reads):
                reasons.add(f"{display_path(call.layer)}: an operation on a masked tensor")
            continue
        layer = layers[call.layer].layer
        given = flow.given(call)
        main = Tensor(call.layer, call.number)
        if flow.has_mask_argument(call) and masks.given[main] != (given or [None])[0]:
            reasons.add(
                f"{display_path(call.layer)}: is called with a mask that Keras did not make"
            )
        try:
            own = created_mask(raw, layer, call, major)
            if own:
                flow.make(call, own)
            else:
                flow.propagate(raw, layer, call)
        except Refusal as error:
            reasons.add(f"{display_path(call.layer)}: {error}")
            continue
        mine = used_masks(raw, layer, call, given, major, flow.has_mask_argument(call))
        wanted.setdefault(call.layer, set()).update(mine)
    for tensor, claim in masks.claimed.items():
        if claim != flow.written.get(masks.steps.get(tensor, tensor)):
            reasons.add(
                f"{display_path(tensor.layer)}: a model is called on it with a mask that "
                "Keras did not make"
            )
    kinds = {path: named.layer for path, named in layers.items()}
    for reader, taker in mask_races(parts.raws, kinds, calls, masks, flow):
        reasons.add(
            f"{display_path(reader.layer)}: reads a mask that "
            f"{display_path(taker.layer)} takes off in Keras 3, before or after"
        )
    for path, which in wanted.items():
        if which:
            layers[path] = replace(layers[path], layer=layers[path].layer.with_masks(which))


class _Translation:
    """The translated layers of a model, and the ledger of their arrays."""

    def __init__(
        self, graph: Graph, container: Container, options: Options, reasons: Reasons
    ) -> None:
        self.graph, self.container, self.options, self.reasons = graph, container, options, reasons
        self.raws = dict(graph.leaves())
        self.names = safe_names([*self.raws])
        self.layers: dict[str, LayerSpec] = {}
        self.custom: dict[str, External] = {}
        self.ledger: list[Entry] = []
        self.notes: list[str] = []
        self._used_functions: set[str] = set()  # custom functions in use

    def foreign(self) -> bool:
        """Whether a custom class has no function in ``options.custom``."""
        return any(
            raw.custom and self._custom_function_name(raw) is None for raw in self.raws.values()
        )

    def _custom_function_name(self, raw: RawLayer) -> str | None:
        """Return the name of the user's function that replaces a layer, or None."""
        names = [raw.name]  # a custom class may have the name of a Keras class
        if raw.custom or raw.class_name not in TRANSLATORS:
            names += [raw.class_name, raw.class_name.rpartition(">")[2]]  # registered: own>Name
        return next((name for name in names if name in self.options.custom), None)

    def translate(self, called: Collection[str]) -> None:
        """Translate every layer in the order of the config, except operations without calls."""
        store = self.container.store
        if isinstance(store, LegacyStore) and not self.container.by_name:
            self.notes = store.pair(self.graph.layers, self.options.allow_unused)
        self._translate(self.graph, store, called, "")

    def _translate(self, graph: Graph, store: Store, called: Collection[str], prefix: str) -> None:
        for raw in graph.layers:
            path = f"{prefix}{raw.name}"
            if raw.is_operation and path not in called:
                continue
            if raw.inner is not None:
                self._translate(raw.inner, store.inner(raw), called, f"{path}{PATH_SEPARATOR}")
                continue
            if raw.is_operation and not raw.custom:
                try:
                    refuse_unknown(raw)
                except Refusal as error:
                    self.reasons.add(f"{display_path(path)}: {error}")
                continue
            try:
                tensors, left = store.tensors(raw).without(self.options.allow_unused)
                if raw.is_input:
                    continue
                layer: Operation
                function = self._custom_function_name(raw)
                if function is not None:
                    self._used_functions.add(function)
                    layer, weights = external(raw, tensors, function, self.options.custom[function])
                    self.custom[path] = layer
                else:
                    layer, weights = translate(raw, tensors, self.container.writer)
            except DamagedError:
                raise
            except (Refusal, FormatError) as error:
                self.reasons.add(f"{display_path(path)}: {error}")
                continue
            name = self.names[path]
            self.layers[path] = LayerSpec(name, layer, weights)
            self.ledger += [
                Entry(part.path, part.shape, name, became(role, [*weights], direction))
                for direction, role, source in tensors.taken
                for part in parts_of(source)
            ]
            self.ledger += [Entry(source.path, source.shape) for source in left]

    def apply_call_arguments(self, calls: Sequence[Call]) -> None:
        """Replace layers by what the arguments of their calls select."""
        layer_by_path: dict[str, Operation] = {}
        for call in calls:
            if call.layer in self.layers:
                named = self.layers[call.layer]
                layer = as_called(self.raws[call.layer], named.layer, call, self.container.writer)
                if layer_by_path.setdefault(call.layer, layer) != layer:
                    self.reasons.add(f"{display_path(call.layer)}: is called in two ways")
        for path, layer in layer_by_path.items():
            if layer is not self.layers[path].layer:
                self.layers[path] = replace(self.layers[path], layer=layer)

    def check_all_used(self) -> None:
        """Check that every array and every option of the user is used."""
        for source in self.container.store.unread():
            if source.path in self.options.allow_unused:
                self.ledger.append(Entry(source.path, source.shape))
            else:
                self.reasons.add(
                    f"weights: {source.path} {source.shape} belongs to no layer (to leave it over: "
                    f"--allow-unused {source.path})"
                )
        unused = {entry.source for entry in self.ledger if not entry.layer}
        for name in self.options.allow_unused:
            if name not in unused:
                raise FormatError(f"allow_unused: no array {name!r:.80} is left over")
        for name in self.options.custom:
            if name not in self._used_functions:
                raise FormatError(
                    f"custom: no layer of the name or class {name!r:.80} needs a function"
                )


def _assemble(
    graph: Graph,
    calls: Sequence[Call],
    outputs: list[Tensor] | Tensor,
    masks: Masks,
    parts: _Translation,
    dtype: str,
) -> ModelSpec:
    kinds = {path: layer.layer for path, layer in parts.layers.items()}
    inputs = read_inputs(graph, calls, kinds, parts.names)
    tensors = {Tensor(name): tensor for name, tensor in zip(graph.inputs, inputs, strict=True)}
    wiring = Wiring(tensors, parts.raws, parts.layers, parts.names, parts.custom, masks, dtype)
    for call in calls:
        wiring.call(call)
    if isinstance(outputs, Tensor):
        names = wiring.all_outputs(outputs)
    else:
        names = [wiring.find(tensor) for tensor in outputs]
    builder = wiring.builder
    uncalled = [layer.name for layer in wiring.layers.values() if layer.name not in builder.layers]
    if uncalled:
        raise FormatError(f"the model contradicts itself: {', '.join(uncalled)}: never called")
    returned = builder.finish(names, "{}_again", keep_inputs=True)
    writer, container = masks.writer, parts.container
    provenance = {
        "framework": writer.framework,
        "framework_version": writer.version,
        "source_format": container.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [
            f"written by {writer.framework} {writer.version}: {writer.evidence}",
            *container.notes,
            *parts.notes,
            *_name_conflicts(parts.raws),
            *(
                f"layer {display_path(old)!r} is called {new!r} here"
                for old, new in parts.names.items()
                if display_path(old) != new
            ),
        ],
        "proof": "assumed" if container.assumed else "stated" if container.stated else "proven",
        "stated": [*container.stated, *(f"assumed: {fact}" for fact in container.assumed)],
        "tensors": [entry.to_json() for entry in parts.ledger],
    }
    try:
        spec = ModelSpec(
            layers=tuple(builder.layers.values()),
            edges=tuple(builder.edges), inputs=builder.inputs, outputs=returned,
            name=graph.name, dtype=dtype, provenance=provenance,
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None
    return _with_free_steps(spec) if is_first_call_shape(graph, kinds.values()) else spec


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
