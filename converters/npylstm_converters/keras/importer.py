"""From a Keras source to a ModelSpec."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm.layers.base import BATCH, STEPS, Dim, Shape
from npylstm.spec import RESERVED, Edge, LayerSpec, TensorSpec
from npylstm_converters.errors import DamagedError, Reasons, Refusal
from npylstm_converters.files import sha256_of
from npylstm_converters.keras.files import (
    Container,
    is_foreign_zip,
    is_keras_file,
    open_container,
)
from npylstm_converters.keras.graph import Graph, RawLayer, Tensor, parse
from npylstm_converters.keras.layers import Writer, dtype_name, translate
from npylstm_converters.keras.runner import KerasRunner
from npylstm_converters.keras.weights import LiveStore
from npylstm_converters.registry import Importer

__all__ = ["IMPORTER", "from_keras"]


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
    graph, writer = parse(container.document), container.writer
    reasons = Reasons()
    for reason in container.foreign:
        reasons.add(reason)
    names = _safe_names(graph)
    layers: dict[str, LayerSpec] = {}
    arrays: set[str] = set()
    for raw in graph.layers:
        if raw.is_input:
            dtype = dtype_name(raw.config.get("dtype"))
            if dtype not in (None, "float32", "float64"):
                reasons.add(f"{raw.name}: inputs of dtype {dtype!r} are not supported")
            continue
        tensors = container.store.tensors(raw)
        try:
            layer, weights = translate(raw, tensors, writer)
        except DamagedError:
            raise
        except (Refusal, FormatError) as error:
            reasons.add(f"{raw.name}: {error}")
            continue
        layers[raw.name] = LayerSpec(names[raw.name], layer, weights)
        arrays |= {str(array.dtype) for array in weights.values()}
    for call in graph.calls:
        if len(call.inputs) > 1:
            reasons.add(f"{call.layer}: takes {len(call.inputs)} tensors, expected one")
        if call.number > 0:
            reasons.add(f"{call.layer}: is called {call.number + 1} times, expected one call")
    if len(arrays) > 1:
        reasons.add(f"weights: expected one element type, got {' and '.join(sorted(arrays))}")
    if not reasons:  # with a layer missing, its arrays are left over, which says nothing new
        for path in container.store.unread():
            reasons.add(f"weights: {path} belongs to no layer")
    reasons.raise_if_any()
    return _assemble(graph, layers, names, container, arrays.pop() if arrays else "float32")


def _assemble(
    graph: Graph,
    layers: Mapping[str, LayerSpec],
    names: Mapping[str, str],
    container: Container,
    dtype: str,
) -> ModelSpec:
    tensors: dict[Tensor, str] = {Tensor(name): names[name] for name in graph.inputs}
    edges = []
    for call in graph.calls:
        missing = [t for t in call.inputs if t not in tensors]
        if missing:
            raise FormatError(
                f"model config: {call.layer}: {missing[0].layer} has no output {missing[0].output}"
            )
        edge = Edge.call(layers[call.layer], *(tensors[t] for t in call.inputs))
        edges.append(edge)
        tensors |= {Tensor(call.layer, 0, k): name for k, name in enumerate(edge.outputs)}
    outputs = []
    for tensor in graph.outputs:
        if tensor not in tensors:
            raise FormatError(f"model config: {tensor.layer} has no output {tensor.output}")
        outputs.append(tensors[tensor])
    # A Sequential model returns all that its last layer returns.
    if edges and container.document["class_name"] == "Sequential":
        outputs = list(edges[-1].outputs)
    taken: dict[str, Any] = {}
    inputs = tuple(
        TensorSpec(names[n], _input_shape(graph, graph.layer(n), layers, taken))
        for n in graph.inputs
    )
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
            layers=tuple(layers[raw.name] for raw in graph.layers if not raw.is_input),
            edges=tuple(edges), inputs=inputs, outputs=tuple(outputs), name=graph.name,
            dtype=dtype, provenance=provenance,
        )  # fmt: skip
    except FormatError as error:
        raise FormatError(f"the model contradicts itself: {error}") from None


def _safe_names(graph: Graph) -> dict[str, str]:
    """Names that can be keys of the file: no slashes, none that the file uses itself."""
    names: dict[str, str] = {}
    taken = {".", "..", *RESERVED}
    for raw in graph.layers:
        name = raw.name.replace("/", "_").replace("\\", "_")
        while name in taken:
            name += "_"
        taken.add(name)
        names[raw.name] = name
    return names


def _input_shape(
    graph: Graph, raw: RawLayer, layers: Mapping[str, LayerSpec], taken: dict[str, Any]
) -> Shape:
    """The shape of an input: as declared, otherwise from the weights of the layer that reads it."""
    config = raw.config
    declared = config.get("batch_input_shape") or config.get("batch_shape") or graph.build_shape
    reader = next((c.layer for c in graph.calls if Tensor(raw.name) in c.inputs), None)
    first = layers[reader].layer if reader else None
    features = getattr(first, "features", None)
    if declared is None and isinstance(config.get("input_shape"), list):
        declared = [None, *config["input_shape"]]
    if declared is None and first is not None and first.kind == "lstm":
        declared = [None, config.get("input_length"), features]
    if declared is None and first is not None and first.kind == "dense":
        declared = [None, features]
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
    return tuple(shape)


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
