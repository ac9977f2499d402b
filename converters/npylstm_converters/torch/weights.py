"""From the tensors of a state_dict and the user's chain to a ModelSpec.

A state_dict holds names and arrays. They determine the modules, but not their connections. The user
states these as a chain: names of modules, and words for the operations between them, joined by
arrows.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step, command_of, parse_steps
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.torch.chains import Chain, read_input
from npylstm_converters.torch.files import Checkpoint, read_checkpoint
from npylstm_converters.torch.modules import RECURRENT, Found, find_modules
from npylstm_converters.torch.open_questions import suggest
from npylstm_converters.torch.pickled import describe_pickled
from npylstm_converters.torch.statements import assumptions, statements

__all__ = ["build_chain", "describe", "from_state_dict"]


def from_state_dict(
    path: str | os.PathLike[str],
    layers: str | None,
    batch_first: bool | None,
    key: str | None = None,
    allow_unused: Sequence[str] = (),
) -> ModelSpec:
    """Return the ModelSpec of a weight file.

    Parameters
    ----------
    path, key
        As for :func:`read_checkpoint`.
    layers
        The chain of modules.
    batch_first
        Whether recurrent modules read (batch, steps, features).
    allow_unused
        Modules, or single tensors, that may stay unused.

    Raises
    ------
    UnsupportedError
        Lists everything that does not fit or is not stated.
    FormatError
        If the file is damaged.
    """
    checkpoint = read_checkpoint(path, key)
    modules = find_modules(checkpoint.tensors)
    label = os.fspath(path)
    if layers is None:
        text = "; ".join(map(str, modules))
        raise UnsupportedError(
            [f"{label}: holds {text}. A state_dict does not store how they are joined: "
             f"`npylstm info {label}` shows what to state"]
        )  # fmt: skip
    steps = parse_steps(layers)
    by_name = {m.name: m for m in modules}
    recurrent = any(by_name[s.word].kind in RECURRENT for s in steps if s.word in by_name)
    if recurrent and batch_first is None:
        raise UnsupportedError(
            [f"{label}: batch_first is not in a state_dict: state --batch-first or "
             "--sequence-first (batch_first=True or False)"]
        )  # fmt: skip
    names = {*by_name, *checkpoint.tensors}
    unknown = [name for name in allow_unused if name not in names]
    if unknown:
        raise FormatError(f"allow_unused: no module or tensor {unknown[0]!r:.80}")
    return build_chain(label, checkpoint, modules, steps, batch_first, allow_unused)


def build_chain(
    label: str,
    checkpoint: Checkpoint,
    modules: list[Found],
    steps: list[Step],
    batch_first: bool | None,
    allow_unused: Sequence[str],
) -> ModelSpec:
    """Return the model of a chain; see :func:`from_state_dict`."""
    dtype = _element_type(checkpoint, modules)
    by_name = {m.name: m for m in modules}
    try:
        start = read_input(steps, by_name, batch_first is not False)
        chain = Chain(modules, batch_first is not False, start, dtype)
    except (Refusal, KeyError) as error:
        raise UnsupportedError([f"layers: {error}"]) from None
    for step in steps:
        try:
            chain.follow(step)
        except (Refusal, FormatError, ValueError, IndexError, KeyError) as error:
            raise UnsupportedError([f"{step.word}: {error}"]) from None
    unused = [m for m in modules if m.name not in chain.used]
    reasons = [
        f"{module}: is not in layers, and nothing may be left over unless it is allowed by name "
        f"(--allow-unused {module.name})"
        for module in unused
        if module.name not in allow_unused
        and any(not {k, f"{module.name}.{k}"} & {*allow_unused} for k in module.tensors)
    ]
    if reasons:
        raise UnsupportedError(reasons)
    builder = chain.builder
    outputs = builder.simplify(builder.finish([chain.tensor.name]))
    for layer in builder.layers.values():
        for name, array in layer.weights.items():
            if not np.isfinite(array).all():
                raise FormatError(f"{layer.name}/{name}: expected finite numbers")
    said = " -> ".join(str(step) for step in steps)
    stated = statements(steps, by_name, start, [m.name for m in unused])
    assumed = assumptions(steps, by_name, batch_first, start)
    if assumed:
        stated = [*assumed, *(s for s in stated if f"assumed: {s}" not in assumed)]
    provenance = {
        "framework": "PyTorch",
        "framework_version": "",
        "source_format": checkpoint.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [
            f"layers: {said}, as stated",
            *([f"batch_first: {batch_first}, as stated"] if batch_first is not None else []),
            *(f"{name}: left over, as allowed" for name in allow_unused),
            *checkpoint.notes,
        ],
        "proof": "assumed" if assumed else "stated",
        "stated": stated,
        "tensors": [
            *(entry.to_json() for entry in chain.ledger),
            *(
                Entry(f"{m.name}.{k}", array.shape).to_json()
                for m in unused
                for k, array in m.tensors.items()
            ),
        ],
    }
    return ModelSpec(
        layers=tuple(builder.layers.values()), edges=tuple(builder.edges), inputs=builder.inputs,
        outputs=outputs, name=os.path.splitext(os.path.basename(label))[0],
        dtype=builder.dtype, provenance=provenance,
    )  # fmt: skip


# Names of the factors in peft and loralib.
_LORA = re.compile(r"(^|[._])lora_")


def _element_type(checkpoint: Checkpoint, modules: Sequence[Found]) -> str:
    """Return the type of all weights; raise UnsupportedError for LoRA factors and other types."""
    lora = [name for name in checkpoint.tensors if _LORA.search(name)]
    if lora:
        raise UnsupportedError(
            [f"holds LoRA factors ({', '.join(lora[:4])}{' ...' if len(lora) > 4 else ''}), and "
             "the weights without them give wrong numbers: merge them before saving, as peft's "
             "merge_and_unload() does, and convert that state_dict"]
        )  # fmt: skip
    types = sorted(
        {str(a.dtype) for m in modules for a in m.tensors.values() if a.dtype.kind == "f"}
    )
    if types not in (["float32"], ["float64"]):
        raise UnsupportedError([f"weights: expected one of float32 and float64, got {types}"])
    return types[0]


def describe(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Any]:
    """Return the contents of a weight file, the open questions, and a command to convert it.

    Returns
    -------
    dict
        ``format``, ``modules`` (one line each), ``asked`` (questions that the file leaves open),
        ``notes``, ``command`` (empty if no chain fits) and ``advice``.
    """
    label = os.fspath(path)
    try:
        checkpoint = read_checkpoint(path, key)
    except UnsupportedError as error:
        parts = describe_pickled(path)
        if not parts:
            raise
        return {"format": "a pickled module", "modules": parts, "asked": [], "notes": [],
                "command": "", "advice": error.reasons[0]}  # fmt: skip
    modules = find_modules(checkpoint.tensors)
    suggestion = suggest(modules)
    command, reason = "", ""
    try:
        steps = parse_steps(suggestion.chain)
        build_chain(label, checkpoint, modules, steps, True if suggestion.timed else None, ())
    except (UnsupportedError, FormatError) as error:
        reason = str(error)
    else:
        flags = " --batch-first" if suggestion.timed else ""
        flags += f" --key {shlex.quote(key)}" if key is not None else ""
        command = command_of(label, suggestion.chain, flags)
        reason = "" if command else "names hold characters that cannot be typed"
    advice = (
        f"no chain of these modules in the order of the file fits: {reason}. Convert the author's "
        "module in memory instead: from_torch(module, example)"
    )
    return {
        "format": checkpoint.format,
        "modules": [str(m) for m in modules],
        "asked": [
            f"{question} [{question.suggested or 'no word'}]" if command else str(question)
            for question in suggestion.questions
        ],
        "notes": list(checkpoint.notes),
        "command": command,
        "advice": "" if command else advice,
    }
