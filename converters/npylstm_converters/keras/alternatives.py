"""Alternative chains of a weights-only file: each differs from the stated one in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm_converters.keras.assembling import convert_container
from npylstm_converters.keras.chains import with_chain
from npylstm_converters.keras.config import ACTIVATION_LAYERS, ACTIVATIONS
from npylstm_converters.keras.files import Container
from npylstm_converters.keras.inferred_layers import RECURRENT, InferredLayer, by_word, find_layers
from npylstm_converters.keras.translating import Options
from npylstm_converters.keras.weights import ListedStore
from npylstm_converters.toolkit.chain import Step, parse_steps, plausible_values

__all__ = ["convert_others", "other_chains"]

_POOLS = ("GlobalAveragePooling1D", "GlobalMaxPooling1D")
_WORDS = {
    "activation": ACTIVATIONS,
    "recurrent_activation": ("sigmoid", "hard_sigmoid"),
    "merge_mode": ("concat", "sum", "mul", "ave"),
    "reset_after": ("true", "false"),
    "padding": ("valid", "same", "causal"),
}
_OUTPUTS = ("sequences", "last")  # written without the name of an option


def convert_others(
    opened: Callable[[], Container], chain: str, options: Options
) -> Iterator[tuple[str, ModelSpec]]:
    """Convert weights without an architecture with every alternative to a chain.

    Parameters
    ----------
    opened
        Returns a new container of the weights; each conversion uses one up.
    chain
        The stated chain.
    options
        As for the stated chain.

    Yields
    ------
    statement
        The alternative as an option of the command line.
    spec
        The model.
    """
    first = opened()
    if not isinstance(first.store, ListedStore):
        return
    layers = by_word(find_layers(first.store, first.writer))
    for steps in other_chains(parse_steps(chain), layers):
        text = " -> ".join(map(str, steps))
        with contextlib.suppress(UnsupportedError, FormatError):
            spec = convert_container(with_chain(opened(), text), options)
            yield f'--layers "{text}"', spec


def other_chains(
    steps: Sequence[Step], layers: Mapping[str, InferredLayer]
) -> Iterator[list[Step]]:
    """Yield chains with one option or one layer without weights changed, added or removed.

    Parameters
    ----------
    steps
        The stated chain.
    layers
        The layers of the file by their words in the chain.
    """
    for number, step in enumerate(steps):
        layer = layers.get(step.word)
        before, behind = [*steps[:number]], [*steps[number + 1 :]]
        for other in _other_steps(step, layer):
            yield [*before, *other, *behind]
        if layer is not None and layer.sizes and "activation" not in layer.asked:
            for name in ACTIVATIONS:
                yield [*before, step, Step("Activation", (name,)), *behind]


def _other_steps(step: Step, layer: InferredLayer | None) -> Iterator[list[Step]]:
    """Yield the alternatives for one step."""
    if step.word in ACTIVATION_LAYERS or step.word == "Activation":
        yield []
    if step.word in _POOLS:
        yield from ([Step(word)] for word in _POOLS if word != step.word)
    asked = dict(layer.asked) if layer is not None else {}
    if layer is not None and layer.class_name in (*RECURRENT, "Bidirectional"):
        asked = {"activation": "tanh", "recurrent_activation": "sigmoid", **asked}
    for name in dict.fromkeys([*asked, *step.options]):
        if name == "output":
            yield from _other_outputs(step)
            continue
        values = tuple(v for v in step.values if name != "activation" or v in _OUTPUTS)
        named = next((v for v in step.values if v not in _OUTPUTS), None)
        said = step.options.get(name, named if name == "activation" else None)
        for other in _WORDS.get(name) or plausible_values(name, said or asked.get(name, "")):
            if other != said:
                yield [replace(step, values=values, options={**step.options, name: other})]


def _other_outputs(step: Step) -> Iterator[list[Step]]:
    """Yield a recurrent layer's alternatives: other output, other last step, other direction."""
    others = tuple(v for v in step.values if v not in _OUTPUTS)
    for word in _OUTPUTS:
        if word not in step.values:
            yield [replace(step, values=(*others, word))]
    for pool in _POOLS:
        yield [replace(step, values=(*others, "sequences")), Step(pool)]
    back = str(step.options.get("go_backwards", "false")).lower() != "true"
    yield [replace(step, options={**step.options, "go_backwards": str(back).lower()})]
