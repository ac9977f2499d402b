"""Chains of a state_dict that differ from a stated one in one answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm_converters.chain import Step, parse_steps
from npylstm_converters.torch.files import read_checkpoint
from npylstm_converters.torch.modules import Found, find_modules
from npylstm_converters.torch.weights import build_chain

__all__ = ["other_chains", "rivals"]

_READS = ("last", "hidden", "mean", "max", "sum")
_ACTIVATIONS = ("relu", "tanh", "sigmoid")
_AT_THE_END = (*_ACTIVATIONS, "softmax", "log_softmax")
_NONLINEARITIES = ("tanh", "relu")


def rivals(
    path: str | os.PathLike[str],
    layers: str,
    batch_first: bool | None,
    key: str | None = None,
    allow_unused: Sequence[str] = (),
) -> Iterator[tuple[str, ModelSpec]]:
    """Build every model that differs in one answer: how it is stated, and the model."""
    checkpoint = read_checkpoint(path, key)
    modules = find_modules(checkpoint.tensors)
    steps = parse_steps(layers)
    asked: list[tuple[list[Step], bool | None]] = [
        (chain, batch_first) for chain in other_chains(steps, {m.name: m for m in modules})
    ]
    if batch_first is not None:
        asked.append((steps, not batch_first))
    for chain, first in asked:
        with contextlib.suppress(UnsupportedError, FormatError):
            spec = build_chain(os.fspath(path), checkpoint, modules, chain, first, allow_unused)
            axes = "" if first is None else " --batch-first" if first else " --sequence-first"
            yield f'--layers "{" -> ".join(map(str, chain))}"{axes}', spec


def other_chains(steps: Sequence[Step], modules: Mapping[str, Found]) -> Iterator[list[Step]]:
    """Change one word: an activation or a reading more, less, or another."""
    for number, step in enumerate(steps):
        before, behind = [*steps[:number]], [*steps[number + 1 :]]
        module = modules.get(step.word)
        if module is None:
            for words in (_READS, _AT_THE_END):
                if step.word in words:
                    others: list[list[Any]] = [[Step(word)] for word in words if word != step.word]
                    yield from ([*before, *new, *behind] for new in ([], *others))
            continue
        if "nonlinearity" in module.asked:
            for word in _NONLINEARITIES:
                if (word,) != step.values:
                    yield [*before, replace(step, values=(word,)), *behind]
        places = [k for k, s in enumerate(behind) if s.word in modules]
        until = places[0] if places else len(behind)
        if not any(s.word in _AT_THE_END for s in behind[:until]):
            for word in _ACTIVATIONS if places else _AT_THE_END:
                for at in dict.fromkeys((until, 0)):  # behind a mean over the steps, and before it
                    yield [*before, step, *behind[:at], Step(word), *behind[at:]]
