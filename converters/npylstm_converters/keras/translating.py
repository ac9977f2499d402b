"""Translates the layers of a model, with their arrays, and checks how they are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npylstm import FormatError
from npylstm.ops.base import Operation
from npylstm.ops.external import External, Function
from npylstm.spec import LayerSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.keras.attention import (
    as_called,
    is_attention,
    supports_argument,
    supports_tensor,
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
from npylstm_converters.keras.inputs import INTEGERS, SMALL_INTEGERS
from npylstm_converters.keras.layers import TRANSLATORS, translate
from npylstm_converters.keras.legacy import LegacyStore
from npylstm_converters.keras.operations import keeps_integers, refuse_unknown, result_type
from npylstm_converters.keras.precision import precision_notes
from npylstm_converters.keras.weights import Store
from npylstm_converters.toolkit.ledger import Entry, became

__all__ = ["Options", "TranslatedLayers"]


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


class TranslatedLayers:
    """The translated layers of a model, and the ledger of their arrays.

    Attributes
    ----------
    raws
        The layers as the config describes them, by path.
    names
        Their names in the spec, by path.
    specs
        The translated ones, by path.
    custom
        Those of them that call a function of the user, by path.
    ledger
        What became of each array.
    notes
        Decisions, for the provenance.
    """

    def __init__(
        self, graph: Graph, container: Container, options: Options, reasons: Reasons
    ) -> None:
        self._graph, self._container = graph, container
        self._options, self._reasons = options, reasons
        self.raws = dict(graph.leaves())
        self.names = safe_names([*self.raws], graph.keys)
        self.specs: dict[str, LayerSpec] = {}
        self.custom: dict[str, External] = {}
        self.ledger: list[Entry] = []
        self.notes: list[str] = []
        self._used_functions: set[str] = set()  # custom functions in use

    def refuse_foreign(self) -> None:
        """Raise UnsupportedError, with all reasons, if a custom class has no function."""
        custom = [raw for raw in self.raws.values() if raw.custom]
        if any(self._custom_function_name(raw) is None for raw in custom):
            self._translate_all(frozenset())
            self._reasons.raise_if_any()

    def _custom_function_name(self, raw: RawLayer) -> str | None:
        """Return the name of the user's function that replaces a layer, or None."""
        names = [raw.name]  # a custom class may have the name of a Keras class
        if raw.custom or raw.class_name not in TRANSLATORS:
            names += [raw.class_name, raw.class_name.rpartition(">")[2]]  # registered: own>Name
        return next((name for name in names if name in self._options.custom), None)

    def translate(self, calls: Sequence[Call]) -> None:
        """Translate every layer, except operations without calls, and check the calls."""
        self._translate_all(frozenset(call.layer for call in calls))
        self._apply_call_arguments(calls)
        for call in calls:
            for problem in self._problems(call):
                self._reasons.add(f"{display_path(call.layer)}: {problem}")
        for name in self._graph.inputs:
            self._check_input(name, calls)
        if self._container.writer.major < 3:
            dtypes = {n: dtype_name(self.raws[n].config.get("dtype")) for n in self._graph.inputs}
            integers = [Tensor(name) for name, dtype in dtypes.items() if dtype in INTEGERS]
            for path in self._integer_operations(integers, calls):
                self._reasons.add(f"{display_path(path)}: TensorFlow computes it with integers")

    def _translate_all(self, called: Collection[str]) -> None:
        """Translate every layer in the order of the config, except operations not ``called``."""
        store = self._container.store
        if isinstance(store, LegacyStore) and not self._container.by_name:
            self.notes = store.pair(self._graph.layers, self._options.allow_unused)
        self.notes += precision_notes(self.raws)
        self._translate(self._graph, store, called, "")

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
                    self._reasons.add(f"{display_path(path)}: {error}")
                continue
            layer: Operation
            function = self._custom_function_name(raw)
            try:
                tensors, left = store.tensors(raw).without(self._options.allow_unused)
                if raw.is_input:
                    continue
                if function is not None:
                    self._used_functions.add(function)
                    layer, weights = external(
                        raw, tensors, function, self._options.custom[function]
                    )
                    self.custom[path] = layer
                else:
                    layer, weights = translate(raw, tensors, self._container.writer)
            except DamagedError:
                raise
            except (Refusal, FormatError) as error:
                self._reasons.add(f"{display_path(path)}: {error}")
                continue
            name = self.names[path]
            self.specs[path] = LayerSpec(name, layer, weights)
            self.ledger += [
                Entry(source.path, source.shape, name, became(role, [*weights], direction))
                for direction, role, source in tensors.taken
            ]
            self.ledger += [Entry(source.path, source.shape) for source in left]

    def _apply_call_arguments(self, calls: Sequence[Call]) -> None:
        """Replace layers by what the arguments of their calls select."""
        layer_by_path: dict[str, Operation] = {}
        for call in calls:
            if call.layer in self.specs:
                named = self.specs[call.layer]
                layer = as_called(self.raws[call.layer], named.layer, call, self._container.writer)
                if layer_by_path.setdefault(call.layer, layer) != layer:
                    self._reasons.add(f"{display_path(call.layer)}: is called in two ways")
        for path, layer in layer_by_path.items():
            if layer is not self.specs[path].layer:
                self.specs[path] = replace(self.specs[path], layer=layer)

    def _problems(self, call: Call) -> Iterator[str]:
        """Yield a message for each unsupported part of a call."""
        raw = self.raws.get(call.layer)
        if raw is not None and raw.is_operation:
            return
        if call.problem:
            yield call.problem
        if call.numbers:
            yield f"is called with numbers {call.numbers}"
        if raw is None or call.layer not in self.specs:
            return
        layer = self.specs[call.layer].layer
        for option in call.options:
            if not supports_tensor(raw, layer, option):
                yield f"is called with {option}=a tensor"
        for argument, value in call.arguments.items():
            if not supports_argument(raw, layer, argument):
                yield f"is called with {argument}={value!r:.60}"
        if call.number and layer.stateful:
            yield "is stateful and called twice"

    def _check_input(self, name: str, calls: Sequence[Call]) -> None:
        """Check the dtype of an input: integers are ids, or exact as floats."""
        dtype, tensor = dtype_name(self.raws[name].config.get("dtype")), Tensor(name)
        if dtype in (None, "float32", "float64"):
            return
        readers = [self.specs.get(call.layer) for call in calls if tensor in call.reads]
        if dtype in SMALL_INTEGERS:
            if not all(made is not None and made.weights for made in readers):
                self._reasons.add(
                    f"{name}: inputs of dtype {dtype!r} are supported for layers with weights; "
                    "others compute with numbers of that size"
                )
        elif dtype not in INTEGERS:
            self._reasons.add(f"{name}: inputs of dtype {dtype!r} are not supported")

    def _integer_operations(
        self, tensors: Iterable[Tensor], calls: Sequence[Call]
    ) -> Iterator[str]:
        """Yield operations behind integers that TensorFlow computes in another way than floats."""
        integers = {*tensors}
        for call in calls:
            raw, made = self.raws.get(call.layer), self.specs.get(call.layer)
            if raw is None or (made is not None and made.weights):
                continue
            kind = result_type(raw, call) if raw.is_operation else ""
            reads = bool(integers & {*call.reads})
            differs = raw.is_operation and not keeps_integers(raw) and kind != "float"
            # TensorFlow cuts the mean of integers.
            if reads and (differs or raw.class_name == "GlobalAveragePooling1D"):
                yield call.layer
            if kind == "integer" or (reads and kind != "float"):
                integers.add(Tensor(call.layer, call.number))

    def dtype(self) -> str:
        """Return the one element type of the weights, for which attention computes its masks."""
        arrays = {str(w.dtype) for spec in self.specs.values() for w in spec.weights.values()}
        if len(arrays) > 1:
            self._reasons.add(
                f"weights: expected one element type, got {' and '.join(sorted(arrays))}"
            )
        if "float64" in arrays:
            for path, spec in self.specs.items():
                if is_attention(self.raws[path], spec.layer):
                    wide: dict[str, Any] = {"mask_in_float32": False}
                    self.specs[path] = replace(spec, layer=replace(spec.layer, **wide))
        return arrays.pop() if arrays else "float32"

    def check_all_used(self) -> None:
        """Check that every array and every option of the user is used."""
        for source in self._container.store.unread():
            if source.path in self._options.allow_unused:
                self.ledger.append(Entry(source.path, source.shape))
            else:
                self._reasons.add(
                    f"weights: {source.path} {source.shape} belongs to no layer (to leave it over: "
                    f"--allow-unused {source.path})"
                )
        unused = {entry.source for entry in self.ledger if not entry.layer}
        for name in self._options.allow_unused:
            if name not in unused:
                raise FormatError(f"allow_unused: no array {name!r:.80} is left over")
        for name in self._options.custom:
            if name not in self._used_functions:
                raise FormatError(
                    f"custom: no layer of the name or class {name!r:.80} needs a function"
                )
