"""From the tensors of a state_dict and the user's chain to a ModelSpec.

A state_dict holds names and arrays. They determine the modules, but not their connections. The user
states these as a chain: names of modules, and words for the operations between them, joined by
arrows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

import npylstm
from npylstm import FormatError, ModelSpec, UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.toolkit.ledger import Entry
from npylstm_converters.torch.chains import Chain, modules_in, read_input
from npylstm_converters.torch.files import Checkpoint
from npylstm_converters.torch.modules import Found
from npylstm_converters.torch.quantized import with_differences
from npylstm_converters.torch.statements import assumptions, statements
from npylstm_converters.torch.weight_file import WeightFile

__all__ = ["build_chain", "from_state_dict"]

_MOST_LISTED = 10


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
        The chain of modules; None for that of a pickled nn.Sequential.
    batch_first
        Whether recurrent modules read (batch, steps, features); None if the file says it.
    allow_unused
        Modules, or single tensors, that may stay unused.

    Raises
    ------
    UnsupportedError
        Lists everything that does not fit or is not stated.
    FormatError
        If the file is damaged.
    """
    file = WeightFile(path, key)
    steps = file.steps(layers)
    order = file.batch_first(steps, batch_first)
    names = {*file.by_name, *file.checkpoint.tensors}
    unknown = [name for name in allow_unused if name not in names]
    if unknown:
        raise FormatError(f"allow_unused: no module or tensor {unknown[0]!r:.80}")
    return build_chain(file, steps, order, allow_unused, own=layers is None)


def build_chain(
    file: WeightFile,
    steps: Sequence[Step],
    batch_first: bool | None,
    allow_unused: Sequence[str] = (),
    own: bool = False,
) -> ModelSpec:
    """Return the model of a chain; see :func:`from_state_dict`.

    ``own``: whether the chain is in the file, and not stated by the user.
    """
    modules, by_name = file.modules, file.by_name
    dtype = _element_type(file.checkpoint, modules)
    left_out = _left_out(file, steps)
    try:
        start = read_input(steps, by_name, batch_first)
        chain = Chain([*by_name.values()], batch_first is not False, start, dtype)
    except (Refusal, KeyError) as error:
        raise UnsupportedError([f"layers: {error}"]) from None
    for step in steps:
        try:
            chain.follow(step)
        except (Refusal, FormatError, ValueError, IndexError, KeyError) as error:
            raise UnsupportedError([f"{step.word}: {error}{left_out}"]) from None
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
    passed_over = [m.name for m in unused if m.tensors or _computes(m, steps)]
    stated = [] if own else statements(steps, by_name, start, passed_over)
    assumed = [] if own else assumptions(steps, by_name, batch_first, start)
    if assumed:
        stated = [*assumed, *(s for s in stated if f"assumed: {s}" not in assumed)]
    origin = "as in the file" if own else "as stated"
    provenance = {
        "framework": "PyTorch",
        "framework_version": "",
        "source_format": file.checkpoint.format,
        "converter": f"npylstm {npylstm.__version__}",
        "decisions": [
            f"layers: {said}, {origin}",
            *([f"batch_first: {batch_first}, {origin}"] if batch_first is not None else []),
            *(f"{name}: left over, as allowed" for name in allow_unused),
            *file.checkpoint.notes,
        ],
        "proof": "proven" if own else "assumed" if assumed else "stated",
        **({} if own else {"stated": stated}),
        "tensors": [
            *(entry.to_json() for entry in chain.ledger),
            *(
                Entry(f"{m.prefix}{k}", array.shape).to_json()
                for m in unused
                for k, array in m.tensors.items()
            ),
        ],
    }
    dequantized = {*file.checkpoint.dequantized}
    codes = [
        m.name for m in modules
        if m.name in chain.used and dequantized & {f"{m.prefix}{k}" for k in m.tensors}
    ]  # fmt: skip
    provenance = with_differences(provenance, codes)
    return ModelSpec(
        layers=tuple(builder.layers.values()), edges=tuple(builder.edges), inputs=builder.inputs,
        outputs=outputs, name=os.path.splitext(os.path.basename(file.label))[0],
        dtype=builder.dtype, provenance=provenance,
    )  # fmt: skip


def _left_out(file: WeightFile, steps: Sequence[Step]) -> str:
    """Return a text on the modules that a chain does not name, for its errors."""
    named = {name for step in steps for name in modules_in(step, file.by_name)}
    missing = [str(m) for m in file.modules if m.tensors and m.name not in named]
    more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
    return f"; the chain leaves out {'; '.join(missing[:_MOST_LISTED])}{more}" if missing else ""


def _computes(module: Found, steps: Sequence[Step]) -> bool:
    """Whether a module without tensors computes something that the chain may lack."""
    word = module.word
    return word is not None and word.word not in ("dropout", "identity") and word not in steps


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
