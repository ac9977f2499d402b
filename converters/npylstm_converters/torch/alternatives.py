"""Alternative chains of a state_dict: each differs from the stated one in one place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm_converters.toolkit.chain import Step, plausible_values
from npylstm_converters.torch.chain_words import ACTIVATIONS, DEFAULTS, READINGS
from npylstm_converters.torch.chains import named
from npylstm_converters.torch.modules import Found
from npylstm_converters.torch.weight_file import WeightFile
from npylstm_converters.torch.weights import build_chain

__all__ = ["alternatives", "other_chains"]

_WITHOUT_VALUES = ("flatten", "transpose", "normalize")


def alternatives(
    path: str | os.PathLike[str],
    layers: str,
    batch_first: bool | None,
    key: str | None = None,
    allow_unused: Sequence[str] = (),
) -> Iterator[tuple[str, ModelSpec]]:
    """Yield every model whose chain differs from the stated one in one place.

    Parameters
    ----------
    path, layers, batch_first, key, allow_unused
        As for :func:`npylstm_converters.from_torch`.

    Yields
    ------
    statement
        The chain on the command line.
    spec
        The model. Chains that do not fit are skipped.
    """
    file = WeightFile(path, key)
    steps = file.steps(layers)
    known = file.knows_batch_first(steps)
    batch_first = file.batch_first(steps, batch_first)
    asked: list[tuple[list[Step], bool | None]] = [
        (chain, batch_first) for chain in other_chains(steps, file.by_name)
    ]
    if batch_first is not None and not known:
        asked.append((steps, not batch_first))
    for chain, first in asked:
        with contextlib.suppress(UnsupportedError, FormatError):
            spec = build_chain(file, chain, first, allow_unused)
            axes = "" if first is None else " --batch-first" if first else " --sequence-first"
            yield f'--layers "{" -> ".join(map(str, chain))}"{axes}', spec


def other_chains(steps: Sequence[Step], modules: Mapping[str, Found]) -> Iterator[list[Step]]:
    """Yield chains with one word added, removed or replaced, or one option changed.

    Parameters
    ----------
    steps
        The stated chain.
    modules
        The modules of the file by name.
    """
    for number, step in enumerate(steps):
        before, behind = [*steps[:number]], [*steps[number + 1 :]]
        for other in _other_steps(step, named(step, modules)):
            yield [*before, *other, *behind]
        if named(step, modules) is not None:
            places = [k for k, s in enumerate(behind) if s.word in modules]
            until = places[0] if places else len(behind)
            if not any(s.word in ACTIVATIONS for s in behind[:until]):
                for at in dict.fromkeys((until, 0)):  # behind a mean over the steps, and before it
                    for word in ACTIVATIONS:
                        yield [*before, step, *behind[:at], Step(word), *behind[at:]]
    if steps and steps[0].word in modules:
        yield from ([Step(word), *steps] for word in ACTIVATIONS)


def _other_steps(step: Step, module: Found | None) -> Iterator[list[Step]]:
    """Yield the alternatives for one step."""
    if module is not None:
        if "nonlinearity" in module.asked:
            yield from (
                [replace(step, values=(w,))] for w in ("tanh", "relu") if (w,) != step.values
            )
        for name, value in step.options.items():
            for other in plausible_values(name, value):
                yield [replace(step, options={**step.options, name: other})]
        return
    for words in (READINGS, ACTIVATIONS):
        if step.word in words:
            yield []
            yield from ([Step(word)] for word in words if word != step.word)
    if step.word in DEFAULTS:
        name, default = DEFAULTS[step.word]
        given = step.options.get(name) or (step.values[0] if step.values else str(default))
        yield from ([Step(step.word, (other,))] for other in plausible_values(name, given))
    if step.word in _WITHOUT_VALUES:
        yield []
