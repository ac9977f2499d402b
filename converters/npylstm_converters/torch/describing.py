"""Describes a weight file: its modules, the open questions, and a command to convert it."""

from __future__ import annotations

import os
import shlex
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.toolkit.chain import Step, command_of
from npylstm_converters.torch.chain_words import BEYOND
from npylstm_converters.torch.open_questions import suggest
from npylstm_converters.torch.weight_file import WeightFile
from npylstm_converters.torch.weights import build_chain

__all__ = ["describe"]


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
    suggestion = suggest([m for m in file.modules if not m.refused or m.tensors])
    command, reason, order = "", "", None
    try:
        steps = own if own is not None else file.steps(suggestion.chain)
        order = True if suggestion.timed and own is None else None
        if own is None and file.knows_batch_first(steps):
            order = file.batch_first(steps, None)
        build_chain(file, steps, order, own=own is not None)
    except (UnsupportedError, FormatError) as error:
        reason = str(error)
    else:
        flags = f" --key {shlex.quote(key)}" if key is not None else ""
        command = _command(file, own, suggestion.chain, order, flags)
        reason = "" if command else "names hold characters that cannot be typed"
    what = "the submodules of the nn.Sequential cannot be converted" if own is not None else (
        "no chain of these modules in the order of the file fits"
    )  # fmt: skip
    questions = suggestion.questions if own is None else ()
    return {
        "format": file.checkpoint.format,
        "what": "a state_dict" if root is None else f"a pickled {root.cls}",
        "modules": [str(m) for m in file.modules],
        "asked": [
            f"{question} [{question.suggested or 'no word'}]" if command else str(question)
            for question in questions
        ],
        "notes": list(file.checkpoint.notes),
        "command": command,
        "advice": "" if command else f"{what}: {reason}; {BEYOND}",
        "sources": dict(file.checkpoint.sources),
    }


def _command(
    file: WeightFile, own: list[Step] | None, chain: str, order: bool | None, flags: str
) -> str:
    """Return the command that converts the file; empty if its names cannot be typed."""
    if own is not None:
        return f"npylstm convert {shlex.quote(file.label)} MODEL.npz{flags}"
    known = file.knows_batch_first(file.steps(chain))
    axes = "" if order is None or known else " --batch-first"
    return command_of(file.label, chain, f"{axes}{flags}")
