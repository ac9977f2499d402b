"""Chains of a weights-only file of Keras that differ from a stated one in one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from npylstm_converters.chain import Step
from npylstm_converters.keras.activations import LAYERS as ACTIVATION_LAYERS
from npylstm_converters.keras.found import Found

__all__ = ["other_chains"]

_ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax")
_GATES = ("sigmoid", "hard_sigmoid")
_POOLS = ("GlobalAveragePooling1D", "GlobalMaxPooling1D")


def other_chains(steps: Sequence[Step], layers: Mapping[str, Found]) -> Iterator[list[Step]]:
    """Change one option of a layer, or leave out or exchange one without weights."""
    for number, step in enumerate(steps):
        for new in _other_steps(step, layers.get(step.word)):
            yield [*steps[:number], *new, *steps[number + 1 :]]


def _other_steps(step: Step, layer: Found | None) -> Iterator[list[Step]]:
    if step.word in ACTIVATION_LAYERS or step.word == "Activation":
        yield []
    elif step.word in _POOLS:
        yield from ([Step(word)] for word in _POOLS if word != step.word)
    elif layer is None:
        return
    elif "activation" in layer.asked or "output" in layer.asked:
        yield from ([other] for other in _with(step, "activation", _ACTIVATIONS))
        if "output" in layer.asked:
            yield from ([other] for other in _with(step, "recurrent_activation", _GATES))


def _with(step: Step, option: str, choices: Sequence[str]) -> Iterator[Step]:
    """Give a step every other value of an option; one without a name is an activation."""
    named = [v for v in step.values if v not in ("sequences", "last")]
    values = tuple(v for v in step.values if option != "activation" or v not in named)
    said = step.options.get(option, named[0] if option == "activation" and named else None)
    for choice in choices:
        if choice != said:
            yield replace(step, values=values, options={**step.options, option: choice})
