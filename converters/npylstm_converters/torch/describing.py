"""Describes a weight file: its modules, the open questions, and a command to convert it."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.toolkit.chain import command_of
from npylstm_converters.torch.chain_words import BEYOND
from npylstm_converters.torch.module_options import LOSS
from npylstm_converters.torch.modules import Found
from npylstm_converters.torch.open_questions import WHICH_AXIS, suggest
from npylstm_converters.torch.weight_file import WeightFile
from npylstm_converters.torch.weights import build_chain

__all__ = ["describe"]

_LOSS = re.compile(r"(^|[._])(loss|criterion)", re.IGNORECASE)


def describe(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Any]:
    """Return the contents of a weight file, the open questions, and a command to convert it.

    Returns
    -------
    dict
        ``format``, ``modules`` (one line each), ``asked`` (questions that the file leaves open),
        ``notes``, ``command`` (empty if no chain fits), ``advice``, and ``sources``: the source
        texts of the author's classes by name, which torch before 1.6 wrote into the file.
    """
    file = WeightFile(path, key)
    root = file.checkpoint.modules.get("")
    own = file.own_chain
    losses = [m.name for m in file.modules if m.tensors and _is_loss(m)]
    network = [m for m in file.modules if m.tensors or not m.refused]
    suggestion = suggest([m for m in network if m.name not in losses], file.joined())
    command, reason, known = "", "", False
    try:
        steps = own if own is not None else file.steps(suggestion.chain)
        known = own is not None or file.knows_batch_first(steps)
        order = file.batch_first(steps, None) if known else True if suggestion.timed else None
        build_chain(file, steps, order, losses, own=own is not None)
    except (UnsupportedError, FormatError) as error:
        reason = str(error)
    else:
        flags = f" --key {shlex.quote(key)}" if key is not None else ""
        flags += "".join(f" --allow-unused {shlex.quote(name)}" for name in losses)
        flags += " --dequantize" if file.checkpoint.dequantized else ""
        axes = " --batch-first" if suggestion.timed and not known else ""
        command = (
            f"npylstm convert {shlex.quote(file.label)} MODEL.npz{flags}"
            if own is not None
            else command_of(file.label, suggestion.chain, f"{axes}{flags}")
        )
        reason = "" if command else "names hold characters that cannot be typed"
    what = (
        "no chain of these modules in the order of the file fits"
        if own is None
        else "a submodule of the nn.Sequential cannot be converted"
    )
    advice = f"{what}: {reason}" + ("" if BEYOND in reason else f"; {BEYOND}")
    questions = [] if own is not None else [
        q for q in suggestion.questions if not (known and q.question == WHICH_AXIS)
    ]  # fmt: skip
    return {
        "format": file.checkpoint.format,
        "what": "a state_dict" if root is None else f"a pickled {root.cls}",
        "modules": [str(m) for m in file.modules],
        "asked": [
            f"{question} [{question.suggested or 'no word'}]" if command else str(question)
            for question in questions
        ],
        "notes": [
            *file.checkpoint.notes,
            *(f"{name}: not a part of the network, by its name or class" for name in losses),
        ],
        "command": command,
        "advice": "" if command else advice,
        "sources": {
            name: text
            for name, text in file.checkpoint.sources.items()
            if not name.startswith("torch.")
        },
    }


def _is_loss(module: Found) -> bool:
    """Whether a module belongs to training; of a state_dict, by its name and a single tensor."""
    return module.refused == LOSS or (
        not module.of_torch and len(module.tensors) == 1 and _LOSS.search(module.name) is not None
    )
