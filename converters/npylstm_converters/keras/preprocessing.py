"""Layers in front that turn words into ids: they are left out, and the ids are the input.

A TextVectorization splits and looks up texts, which is no arithmetic. Whoever runs the model does
that before; the vocabulary and the options are in ``provenance["preprocessing"]``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.keras.graph import Call, Graph, RawLayer, Tensor

__all__ = ["CLASSES", "Vocabulary", "advice", "sentences", "without_preprocessing"]

CLASSES = ("TextVectorization", "StringLookup", "IntegerLookup", "Hashing")
# Returns the words of a layer as the file holds them apart from the config, or None.
Vocabulary = Callable[[RawLayer], Sequence[Any] | None]
_MAX_VOCABULARY = 1 << 20  # bytes of JSON


def advice(class_name: str) -> str:
    """Return the reason against a layer of these classes that is elsewhere than in front."""
    return (
        f"layer class {class_name!r} is not supported here: only directly behind an input, where "
        "it is left out and the ids are the input; cut the model behind it yourself"
    )


def without_preprocessing(
    graph: Graph, vocabulary: Vocabulary, reasons: Reasons
) -> tuple[Graph, list[dict[str, Any]]]:
    """Return a model whose inputs are the ids that its first layers compute.

    Parameters
    ----------
    graph
        The model.
    vocabulary
        Returns the words of such a layer, asked in the order of the layers.
    reasons
        Collects what is not supported.

    Returns
    -------
    graph
        Without these layers.
    entries
        One for each of them, for the provenance: ``input``, ``layer``, ``class``, ``options``,
        ``vocabulary``.
    """
    entries: list[dict[str, Any]] = []
    for raw in [raw for raw in graph.layers if raw.class_name in CLASSES and not raw.custom]:
        words = vocabulary(raw)
        try:
            graph, inputs = _without(graph, raw)
        except Refusal as error:
            reasons.add(f"{raw.name}: {error}")
            continue
        for problem in _problems(raw):
            reasons.add(f"{raw.name}: {problem}")
        options, listed = _options(raw, words)
        own = {"layer": raw.name, "class": raw.class_name, "options": options, "vocabulary": listed}
        entries += [_limited({"input": name, **own}) for name in inputs]
    return graph, entries


def _without(graph: Graph, raw: RawLayer) -> tuple[Graph, list[str]]:
    """Return the graph without a layer, and the inputs that are ids now."""
    calls = [call for call in graph.calls if call.layer == raw.name]
    inputs: dict[Tensor, Tensor] = {}
    for call in calls:
        (source,) = call.inputs if len(call.inputs) == 1 else (None,)
        others = [c for c in graph.calls if c is not call and source in c.reads]
        if source is None or source.layer not in graph.inputs or others:
            raise Refusal(advice(raw.class_name))
        inputs[Tensor(raw.name, call.number)] = source
    if any(tensor in inputs for tensor in graph.outputs) or not calls:
        raise Refusal(advice(raw.class_name))

    def ids(tensor: Tensor) -> Tensor:
        return inputs.get(tensor, tensor)

    kept = [_reading(call, ids) for call in graph.calls if call.layer != raw.name]
    sources = [tensor.layer for tensor in inputs.values()]
    layers = [
        _of_ids(layer, raw, graph) if layer.name in sources else layer
        for layer in graph.layers
        if layer is not raw
    ]
    return replace(graph, layers=tuple(layers), calls=tuple(kept), build_shape=None), sources


def _problems(raw: RawLayer) -> Iterator[str]:
    """Yield a message for each option with which a layer computes something else than ids."""
    for option in ("ragged", "invert"):
        if raw.config.get(option):
            yield f"{raw.class_name} with {option}={raw.config[option]!r:.40} is not supported"
    mode = raw.config.get("output_mode", "int")
    if mode != "int":
        yield (
            f"{raw.class_name} with output_mode={mode!r:.40} is not supported, only 'int'; cut the "
            "model behind it yourself"
        )


def _reading(call: Call, ids: Callable[[Tensor], Tensor]) -> Call:
    """Return a call that reads the ids."""
    return replace(
        call,
        inputs=tuple(map(ids, call.inputs)),
        options={key: tuple(map(ids, tensors)) for key, tensors in call.options.items()},
        masks=tuple(mask if mask is None else ids(mask) for mask in call.masks),
    )


def _of_ids(source: RawLayer, raw: RawLayer, graph: Graph) -> RawLayer:
    """Return the input of a layer as one of the ids that the layer computes."""
    config = source.config
    shape = config.get("batch_shape") or config.get("batch_input_shape") or graph.build_shape
    if shape is None and isinstance(config.get("input_shape"), list):
        shape = [None, *config["input_shape"]]
    if raw.class_name == "TextVectorization":
        if raw.config.get("split", "whitespace") is not None:
            shape = [(shape or [None])[0], raw.config.get("output_sequence_length")]
    elif shape is None:
        raise Refusal("the shape of its input is nowhere declared")
    return replace(source, config={"name": source.name, "batch_shape": shape, "dtype": "int64"})


def _options(raw: RawLayer, words: Sequence[Any] | None) -> tuple[dict[str, Any], list[Any] | None]:
    """Return the config without its words, and the words in the order of their ids."""
    aside = ("name", "trainable", "dtype", "vocabulary", "batch_input_shape", "idf_weights")
    options = {k: v for k, v in raw.config.items() if k not in aside}
    listed = raw.config.get("vocabulary")
    found = [*words] if words is not None else None
    if isinstance(listed, list):
        special = [*_special_words(raw)]
        found = listed if listed[: len(special)] == special else [*special, *listed]
    return options, found


def _special_words(raw: RawLayer) -> Iterator[Any]:
    """Yield the words of the first ids: for padding, and for unknown words."""
    text = raw.class_name == "TextVectorization"
    mask = "" if text else raw.config.get("mask_token")
    unknown = raw.config.get("oov_token", "[UNK]")
    if mask is not None:
        yield mask
    yield from [unknown] * (1 if text else raw.config.get("num_oov_indices", 1))


def _limited(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without a vocabulary that is too long for the file."""
    words = entry["vocabulary"]
    if words is None or len(json.dumps(words)) <= _MAX_VOCABULARY:
        return entry
    return {**entry, "vocabulary": None, "words": len(words)}


def sentences(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a user of the model does before calling it."""
    for entry in entries:
        words = entry["vocabulary"]
        count = entry.get("words", 0 if words is None else len(words))
        where = "in provenance" if words else "in the source only"
        held = (
            f"its vocabulary of {count:,} words is {where}" if count else "has no vocabulary here"
        )
        yield (
            f"{entry['input']}: takes the ids that {entry['class']} {entry['layer']!r} computes, "
            f"which is left out; {held}"
        )
