"""The ``info`` text for a weights-only file: its layers, open questions and a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from npylstm import NpylstmError, UnsupportedError
from npylstm_converters.keras.assembling import convert_container
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.config import ACTIVATION_LAYERS, Writer
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.inferred_layers import (
    DEFAULTS,
    RECURRENT,
    InferredLayer,
    find_layers,
    reads_sequence,
)
from npylstm_converters.keras.translating import Options
from npylstm_converters.keras.weights import ListedStore
from npylstm_converters.toolkit.chain import command_of

__all__ = ["ask_for_architecture", "describe"]

_ACTIVATIONS = "linear, relu, tanh, sigmoid, softmax or another"


def ask_for_architecture(container: Container, source: str | os.PathLike[str]) -> str:
    """Return the error for a missing architecture, with the ways to supply one."""
    text = "holds weights only; give the architecture, the text of model.to_json(), by "
    if not isinstance(container.store, ListedStore):
        return f"{text}--architecture model.json"
    return (
        f"{text}--architecture model.json, or state the layers by --layers: "
        f"`npylstm info {shlex.quote(os.fspath(source))}` shows what to state"
    )


def describe(
    container: Container, source: str | os.PathLike[str], flags: str = ""
) -> dict[str, Any]:
    """Return the layers of a weights-only file, the open questions, and a command.

    It reads the weights to check that the command runs, which uses up the container. The command
    ends with ``flags``.

    Raises
    ------
    UnsupportedError
        If the file does not name its layers.
    """
    if not isinstance(container.store, ListedStore):
        raise UnsupportedError([ask_for_architecture(container, source)])
    writer = container.writer
    found = find_layers(container.store, writer)
    notes = [f"written by {writer.framework} {writer.version}: {writer.evidence}"]
    notes += container.notes
    notes += [
        f"{f.name}: holds no arrays, and its name is no class of Keras: state its class, such as "
        "Dropout, or leave it out"
        for f in found
        if f.class_name == "?" and not f.sizes
    ]
    shown = [f for f in found if f.class_name != "InputLayer"]
    known = [f for f in shown if f.sizes or f.class_name != "?"]
    words: list[str] = []
    asked: list[str] = []
    for number, layer in enumerate(known):
        answers = dict(_answers(layer, known[:number], known[number + 1 :], writer))
        words.append(_with_options(layer, answers))
        asked += _questions(layer, answers)
    asked = asked or ["how are these layers connected? one after the other [in this order]"]
    command, reason = command_of(os.fspath(source), " -> ".join(words), flags), ""
    try:
        convert_container(with_chain(container, " -> ".join(words)), Options())
    except NpylstmError as error:
        command, reason = "", str(error)
    advice = (
        f"no chain of these layers in this order fits: {reason or 'their names cannot be typed'}. "
        "State the order of the model by --layers, or give its architecture, the text of "
        "model.to_json(), by --architecture model.json"
    )
    return {
        "format": container.format,
        "what": "a weights-only file",
        "modules": [str(f) for f in shown],
        "asked": asked if command else [question.rpartition(" [")[0] for question in asked],
        "notes": notes,
        "command": command,
        "advice": "" if command else advice,
    }


def _answers(
    layer: InferredLayer,
    before: Sequence[InferredLayer],
    behind: Sequence[InferredLayer],
    writer: Writer,
) -> Iterator[tuple[str, str]]:
    """Yield the likeliest value of each option that a layer's arrays do not determine."""
    asked = dict(layer.asked)
    kind = layer.class_name
    if layer.stored is not None:
        return
    if kind == "Bidirectional":
        kind = layer.config["layer"]["class_name"]
    if asked.pop("output", None) is not None:
        yield "output", "sequences" if reads_sequence(layer, behind) else "last"
    if kind in RECURRENT:
        yield "activation", "tanh"
        if kind != "SimpleRNN" and "recurrent_activation" not in {**layer.config, **asked}:
            yield "recurrent_activation", writer.recurrent_default or "sigmoid"
    elif "activation" in asked:
        yield "activation", _activation(layer, before, behind)
        del asked["activation"]
    if "merge_mode" in asked:
        following = next((f.features for f in behind if f.features), None)
        asked["merge_mode"] = "sum" if following == (layer.gives or 0) // 2 else "concat"
    yield from asked.items()
    yield from DEFAULTS.get(layer.class_name, {}).items()


def _activation(
    layer: InferredLayer, before: Sequence[InferredLayer], behind: Sequence[InferredLayer]
) -> str:
    """Return the likeliest activation: two matrix products in a row would equal one."""
    following = next((f for f in behind if f.sizes), None)
    between = behind[: behind.index(following)] if following is not None else behind
    if any(f.class_name in ("Activation", *ACTIVATION_LAYERS) for f in between):
        return "linear"
    if following is not None and following.class_name == "BatchNormalization":
        return "linear" if layer.sizes else "relu"
    if following is not None:
        return "relu"
    if layer.sizes:
        return "linear"
    size = next((f.gives for f in reversed(before) if f.gives), 1)
    return "softmax" if size > 1 else "sigmoid"


def _with_options(layer: InferredLayer, answers: dict[str, str]) -> str:
    options = [v if k in ("output", "activation") else f"{k}={v}" for k, v in answers.items()]
    return f"{layer.name}({', '.join(options)})" if options else layer.name


def _questions(layer: InferredLayer, answers: dict[str, str]) -> Iterator[str]:
    """Yield a question for each undetermined option, with the value in the command."""
    rest = dict(answers)
    output = rest.pop("output", None)
    if output is not None:
        choices = "sequences (every step) or last (the last step)"
        yield f"{layer.name}: what does it give? {choices} [{output}]"
    activation = rest.pop("activation", None)
    if activation is not None:
        yield f"{layer.name}: what is its activation? {_ACTIVATIONS} [{activation}]"
    if rest:
        taken = ", ".join(f"{k}={v}" for k, v in rest.items())
        yield f"{layer.name}: what is its {', '.join(rest)}? [{taken}]"
