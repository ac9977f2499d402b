"""From a Keras source to a ModelSpec."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.layers import Bidirectional, Dense, Embedding, Identity
from npylstm.layers.base import BATCH, STEPS, Dim
from npylstm.layers.recurrent import Recurrent
from npylstm.spec import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.files import sha256_of
from npylstm_converters.keras.config import Writer, dtype_name
from npylstm_converters.keras.files import (
    Container,
    is_foreign_zip,
    is_keras_file,
    open_container,
)
from npylstm_converters.keras.graph import Call, Graph, RawLayer, Tensor, inline, parse
from npylstm_converters.keras.layers import translate
from npylstm_converters.keras.runner import KerasRunner
from npylstm_converters.keras.weights import LiveStore, Store
from npylstm_converters.registry import Importer

__all__ = ["IMPORTER", "from_keras"]

_UNSAFE = re.compile(r"[\x00-\x1f/\\]")


def from_keras(source: Any, architecture: str | os.PathLike[str] | None = None) -> ModelSpec:
    """Convert a Keras model. Neither Keras nor TensorFlow is needed for a path.

    Parameters
    ----------
    source
        A path to a ``.keras`` file, a full-model ``.h5`` or a weights-only ``.h5`` of Keras 1, 2
        or 3; or a Keras 3 or tf_keras model object.
    architecture
        A JSON file with the text of ``model.to_json()``, for weights-only files.

    Returns
    -------
    ModelSpec
        Without recorded cases.

    Raises
    ------
    UnsupportedError
        Listing every layer, option and array that stands in the way.
    FormatError
        If a file is damaged or is not a Keras file.
    OSError
        If a file cannot be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _convert(_open_object(source))
    with open_container(source, architecture) as container:
        if container.document is None:
            raise FormatError(
                f"{os.fspath(source)}: holds weights only; give the architecture, the text of "
                "model.to_json(), by --architecture model.json"
            )
        try:
            spec = _convert(container)
        except FormatError as error:
            text = str(error)
            label = os.fspath(source)
            raise FormatError(text if text.startswith(label) else f"{label}: {text}") from None
    return replace(spec, provenance={**spec.provenance, "source_sha256": sha256_of(source)})


def is_keras_model(source: object) -> bool:
    """Whether an object looks like a Keras model: no import of Keras is needed to tell."""
    return all(hasattr(source, name) for name in ("get_config", "layers", "get_weights"))


def _open_object(model: Any) -> Container:
    if not is_keras_model(model):
        raise FormatError(f"expected a path or a Keras model, got {type(model).__name__}")
    try:
        if hasattr(model, "to_json"):
            document = json.loads(model.to_json())
        else:
            document = {"class_name": type(model).__name__, "config": model.get_config()}
    except Exception as error:  # user code: get_config of subclasses raises what it likes
        raise UnsupportedError(
            f"{type(model).__name__}: its config cannot be had: {error}; rebuild it as a "
            "Sequential or functional model around the same layers"
        ) from None
    version = document.get("keras_version") or _module_version(model)
    writer = Writer("Keras", version, f"a model object of Keras {version}")
    foreign = tuple(_foreign_code(model))
    return Container(document, LiveStore(model), writer, "model object", foreign)


def _foreign_code(model: Any) -> Iterator[str]:
    """Find classes and functions of the user's own, which a config may call by Keras' names."""
    wrapped = [getattr(layer, "layer", None) for layer in model.layers]
    for layer in [*model.layers, *(inner for inner in wrapped if inner is not None)]:
        bases = type(layer).__mro__
        if not _of_keras(bases[0]) and any(map(_of_keras, bases)):
            yield f"{layer.name}: layer class {type(layer).__name__!r} is a class of the user's own"
        elif is_keras_model(layer):
            yield from (f"{layer.name}.{reason}" for reason in _foreign_code(layer))
        for name in ("activation", "recurrent_activation"):
            function = getattr(layer, name, None)
            owner: Any = function if hasattr(function, "__name__") else type(function)
            if function is not None and not _of_keras(owner):
                yield f"{layer.name}: {name} {owner.__name__!r} is a function of the user's own"


def _of_keras(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in ("keras", "tf_keras", "tensorflow")


def _module_version(model: object) -> str:
    """The version of the Keras in memory that the model's class, or a base of it, comes from."""
    for cls in type(model).__mro__:
        package = cls.__module__.split(".")[0]
        if package in ("keras", "tf_keras"):
            return str(getattr(sys.modules.get(package), "__version__", "3"))
    return "3"


def _convert(container: Container) -> ModelSpec:
    graph = parse(container.document)
    reasons = Reasons()
    for reason in container.foreign:
        reasons.add(reason)
    names = _safe_names([path for path, _ in graph.leaves()])
    layers: dict[str, LayerSpec] = {}
    _translate_all(graph, container.store, container.writer, names, reasons, layers)
    calls, outputs = inline(graph)
    for call in calls:
        if call.problem:
            reasons.add(f"{call.layer}: {call.problem}")
        made = layers.get(call.layer)
        if made is None:
            continue
        for option in call.options:
            if option != "initial_state" or not made.layer.state_shapes():
                reasons.add(f"{call.layer}: is called with {option}=a tensor")
        if call.number and getattr(made.layer, "stateful", False):
            reasons.add(f"{call.layer}: is stateful and called twice")
    for name in graph.inputs:
        dtype = dtype_name(graph.layer(name).config.get("dtype"))
        readers = [layers.get(c.layer) for c in calls if Tensor(name) in c.reads]
        ids = all(made is None or isinstance(made.layer, Embedding) for made in readers)
        if dtype not in (None, "float32", "float64") and not (ids and dtype in ("int32", "int64")):
            reasons.add(f"{name}: inputs of dtype {dtype!r} are not supported")
    arrays = {str(w.dtype) for layer in layers.values() for w in layer.weights.values()}
    if len(arrays) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(arrays))}")
    if not reasons:  # with a layer missing, its arrays are left over, which says nothing new
        for path in container.store.unread():
            reasons.add(f"weights: {path} belongs to no layer")
    reasons.raise_if_any()
    flat = Flat(graph, calls, outputs)
    return _assemble(flat, layers, names, container, arrays.pop() if arrays else "float32")


class Flat(NamedTuple):
    """A graph, its calls and outputs with models inside written out."""

    graph: Graph
    calls: list[Call]
    outputs: list[Tensor]


def _translate_all(
    graph: Graph,
    store: Store,
    writer: Writer,
    names: Mapping[str, str],
    reasons: Reasons,
    layers: dict[str, LayerSpec],
    prefix: str = "",
) -> None:
    """Translate every layer in the order of the config, into ``layers`` by path."""
    for raw in graph.layers:
        path = f"{prefix}{raw.name}"
        if raw.inner is not None:
            inner = store.inner(raw)
            _translate_all(raw.inner, inner, writer, names, reasons, layers, f"{path}.")
            continue
        try:
            tensors = store.tensors(raw)
            if raw.is_input:
                continue
            layer, weights = translate(raw, tensors, writer)
        except DamagedError:
            raise
        except (Refusal, FormatError) as error:
            reasons.add(f"{path}: {error}")
            continue
        layers[path] = LayerSpec(names[path], layer, weights)


def _assemble(
    flat: Flat,
    layers: dict[str, LayerSpec],
    names: Mapping[str, str],
    container: Container,
    dtype: str,
) -> ModelSpec:
    graph = flat.graph
    tensors: dict[Tensor, str] = {Tensor(name): names[name] for name in graph.inputs}
    edges = []

    def find(tensor: Tensor) -> str:
        if tensor not in tensors:
            raise FormatError(f"model config: {tensor.layer} has no output {tensor.output}")
        return tensors[tensor]

    for call in flat.calls:
        edge = Edge.call(layers[call.layer], *map(find, call.reads), number=call.number + 1)
        edges.append(edge)
        tensors |= {Tensor(call.layer, call.number, k): name for k, name in enumerate(edge.outputs)}
    outputs = [find(tensor) for tensor in flat.outputs]
    # A Sequential model returns all that its last layer returns.
    if edges and container.document["class_name"] == "Sequential":
        outputs = list(edges[-1].outputs)
    outputs = list(_told_apart(outputs, layers, edges))
    taken: dict[str, Any] = {}
    inputs = tuple(_input(flat, graph.layer(n), names[n], layers, taken) for n in graph.inputs)
    writer = container.writer
    provenance = {
        "framework": writer.framework,
        "framework_version": writer.version,
        "source_format": container.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [f"written by {writer.framework} {writer.version}: {writer.evidence}"]
        + [f"layer {old!r} is called {new!r} here" for old, new in names.items() if old != new],
    }
    try:
        return ModelSpec(
            layers=tuple(layers.values()),
            edges=tuple(edges), inputs=inputs, outputs=tuple(outputs), name=graph.name,
            dtype=dtype, provenance=provenance,
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None


def _told_apart(
    outputs: list[str], layers: dict[str, LayerSpec], edges: list[Edge]
) -> Iterator[str]:
    """Give an output that the model returns twice a name of its own the second time."""
    seen: set[str] = set()
    for name in outputs:
        if name in seen:
            copy = f"{name.replace('/', '_')}_again"
            while copy in {layer.name for layer in layers.values()}:
                copy += "_"
            layers[copy] = LayerSpec(copy, Identity())
            edges.append(Edge.call(layers[copy], name))
            name = copy
        seen.add(name)
        yield name


def _safe_names(paths: list[str]) -> dict[str, str]:
    """Names that can be keys of the file: no slashes, none that the file uses itself."""
    names: dict[str, str] = {}
    taken = {".", "..", *RESERVED}
    for path in paths:
        name = _UNSAFE.sub("_", path)
        while name in taken:
            name += "_"
        taken.add(name)
        names[path] = name
    return names


def _input(
    flat: Flat,
    raw: RawLayer,
    name: str,
    layers: Mapping[str, LayerSpec],
    taken: dict[str, Any],
) -> TensorSpec:
    """An input: its shape as declared, otherwise from the weights of the layer that reads it."""
    config = raw.config
    declared = config.get("batch_input_shape") or config.get("batch_shape")
    declared = declared or flat.graph.build_shape
    readers = [layers[c.layer].layer for c in flat.calls if Tensor(raw.name) in c.reads]
    first = readers[0] if readers else None
    features = getattr(first, "features", None)
    if declared is None and isinstance(config.get("input_shape"), list):
        declared = [None, *config["input_shape"]]
    if declared is None and isinstance(first, (Recurrent, Bidirectional)):
        declared = [None, config.get("input_length"), features]
    if declared is None and isinstance(first, Dense):
        declared = [None, features]
    if declared is None and isinstance(first, Embedding):
        declared = [None, config.get("input_length")]
    if declared is None:
        raise FormatError(f"{raw.name}: the input shape is nowhere declared")
    if not isinstance(declared, (list, tuple)) or not all(
        d is None or (isinstance(d, int) and not isinstance(d, bool)) for d in declared
    ):
        raise FormatError(f"{raw.name}: expected an input shape, got {declared!r:.80}")
    time_major = bool(getattr(first, "time_major", False))
    shape: list[Dim] = []
    for axis, size in enumerate(declared):
        if axis == int(time_major):
            shape.append(BATCH)  # a batch size that the framework pinned is set free
        elif size is None:
            used = sum(1 for t in shape if str(t).startswith(STEPS)) + taken.get(STEPS, 0)
            shape.append(STEPS if used == 0 else f"{STEPS}_{used + 1}")
        else:
            shape.append(int(size))
    taken[STEPS] = taken.get(STEPS, 0) + sum(1 for d in shape if str(d).startswith(STEPS))
    whole = bool(readers) and all(isinstance(layer, Embedding) for layer in readers)
    return TensorSpec(name, tuple(shape), whole)


class _KerasImporter(Importer):
    name = "keras"
    options = ("architecture",)

    def accepts(self, source: Any, head: bytes) -> bool:
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            return os.path.exists(os.path.join(source, "saved_model.pb"))
        if not head:
            return is_keras_model(source)
        return is_keras_file(head) and not (head.startswith(b"PK") and is_foreign_zip(source))

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_keras(source, **options)

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> KerasRunner:
        return KerasRunner(source, spec, **options)


IMPORTER = _KerasImporter()
