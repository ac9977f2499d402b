"""How outputs of npylstm are compared with those of PyTorch's modules, and how large rounding may be.

Every module is converted in float32 and in float64 (in a sample, in one of them), and compared with
PyTorch's own float64 run of the same weights, for another batch and another length than the example's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import npylstm_converters as nc
import numpy as np
import torch
from backends import BACKENDS
from sampling import one_of
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import npylstm
from npylstm import Model

Array = np.ndarray[Any, Any]

TYPES = {"float32": torch.float32, "float64": torch.float64}

# float32: two correct programs differ in the order of their sums. PyTorch's own rms error tells how
# large such noise is in this very module; the largest of some thousand values is about 4 times their
# rms, and one program's rms may be 4 times the other's where that one is lucky. And where it happens
# to be exact, a chain of a few functions on values of size one may still lose 8 units in the last
# place.
NOISE_FACTOR = 16
FLOOR_ULPS = 8

# float64: a unit in the last place is 2e-16 and noise grows some hundredfold over 30 steps and 3
# layers. The smallest mistake that is worth the name, a constant in float32, shows at 1e-8.
FLOAT64_TOLERANCE = 1e-12


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def randomise(module: nn.Module, seed: int) -> None:
    """Weights that tell gates apart, biases that are never zero, running statistics of a kind."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.dtype.is_floating_point:
                continue
            spread = 0.8 / math.sqrt(tensor.shape[-1]) if tensor.ndim > 1 else 0.5
            values = rng.uniform(-1, 1, tuple(tensor.shape)) * spread
            values = values + 0.05 * np.sign(values)
            if name.endswith("running_var"):
                values = np.abs(values) + 0.3
            tensor.copy_(torch.as_tensor(values))


def build(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    """A module with this forward and these submodules."""
    made = type("Forward", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Numbers that are whole in float32 and so the same in float64."""
    values = scale * np.random.default_rng([seed, *shape]).normal(size=shape)
    return torch.as_tensor(values.astype(np.float32))


def whole(*shape: int, below: int, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng([seed, *shape]).integers(0, below, shape))


def cast(example: Any, dtype: torch.dtype) -> Any:
    """The same example in another element type; whole numbers stay as they are."""

    def change(x: Any) -> Any:
        floating = isinstance(x, torch.Tensor) and x.dtype.is_floating_point
        return x.to(dtype) if floating else x

    return pytree.tree_map(change, example)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """So that torch.zeros(...) in a forward is of the module's own type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def flat(values: Any) -> list[Array]:
    return [v.detach().numpy().copy() for v in pytree.tree_leaves(values) if v is not None]


def run(module: Callable[..., Any], example: Any) -> list[Array]:
    """PyTorch's own answer, as a list; the example is not touched."""
    if isinstance(module, nn.Module):
        module.eval()
    example = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, example)
    with torch.no_grad():
        if isinstance(example, dict):
            return flat(module(**example))
        return flat(module(*example) if isinstance(example, tuple) else module(example))


def predict(model: Model, example: Any, **options: Any) -> list[Array]:
    arrays = flat(example)
    before = [a.copy() for a in arrays]
    y = model.predict(arrays if len(arrays) > 1 else arrays[0], **options)
    for mine, was in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(mine, was, "predict wrote into its inputs")
    if isinstance(y, dict):
        assert list(y) == [t.name for t in model.outputs]
        return list(y.values())
    return [y]


def assert_close(ours: list[Array], theirs: list[Array], exact: list[Array]) -> None:
    """Compare outputs one by one: shape, element type, nan and infinities, and numbers."""
    assert len(ours) == len(theirs) == len(exact)
    for k, (y, torchs, truth) in enumerate(zip(ours, theirs, exact, strict=True)):
        assert y.shape == torchs.shape, f"output {k}"
        assert y.dtype == torchs.dtype, f"output {k}"
        finite = np.isfinite(truth)
        np.testing.assert_array_equal(y[~finite], truth[~finite], f"output {k}")
        size = np.maximum(1, np.abs(truth[finite]))
        if y.dtype == np.float64:
            tolerance = np.full(size.shape, FLOAT64_TOLERANCE * size.max(initial=1))
        else:
            noise = rms(torchs[finite].astype(np.float64) - truth[finite])
            tolerance = NOISE_FACTOR * noise + FLOOR_ULPS * np.finfo(np.float32).eps * size
        with np.errstate(invalid="ignore"):
            strain = np.abs(y[finite].astype(np.float64) - truth[finite]) / tolerance
        strain = np.where(np.isnan(strain), np.inf, strain)
        assert strain.max(initial=0) <= 1, (
            f"output {k} of type {y.dtype}: {strain.max():.3g} times the tolerance, "
            f"{(strain > 1).sum()} of {strain.size} values"
        )


def assert_parity(
    module: nn.Module,
    example: Any,
    *others: Any,
    reference: Callable[..., Any] | None = None,
    lengths: list[int] | None = None,
    seed: int | None = 0,
    types: Sequence[str] | None = None,
    saved_as: Any = None,
) -> None:
    """Convert with the example and compare for it and for all others.

    ``reference`` computes what is expected, if it is not the module itself (for ``lengths``);
    ``seed`` None leaves the weights alone; ``saved_as`` is a file to take the model through;
    ``types`` are both, in a sample one of them, unless given.
    """
    types = types or one_of(list(TYPES))
    if seed is not None:
        randomise(module, seed)
    asked = others if lengths else (example, *others)
    answers = {}
    specs = {}
    for name in ("float32", "float64"):
        dtype = TYPES[name]
        module.to(dtype)
        with default_type(dtype):
            answers[name] = [run(reference or module, cast(x, dtype)) for x in asked]
            if name in types:
                specs[name] = nc.from_torch(module, cast(example, dtype))
                assert specs[name].dtype == name
    if saved_as is not None:  # through the file, for all that the file must hold
        for name, spec in specs.items():
            npylstm.save(spec, saved_as)
            specs[name] = npylstm.load(saved_as, "numpy").spec
    for name, spec in specs.items():
        for backend in BACKENDS:
            model = Model(spec, backend)
            for x, theirs, exact in zip(asked, answers[name], answers["float64"], strict=True):
                ours = predict(model, cast(x, TYPES[name]), lengths=lengths)
                assert_close(ours, theirs, exact)


def packed(
    rnn: nn.Module, x: torch.Tensor, lengths: list[int], states: Any = None
) -> tuple[torch.Tensor, Any]:
    """A recurrent layer around which sequences are packed, and padded again."""
    first = bool(rnn.batch_first)
    sequences = pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False)
    y, after = rnn(sequences, states)
    steps = x.size(1) if first else x.size(0)
    return pad_packed_sequence(y, first, total_length=steps)[0], after


Parts = dict[str, Any]


def lstm(batch_first: bool = True, **options: Any) -> Parts:
    return {"rnn": nn.LSTM(3, 6, batch_first=batch_first, **options), "out": nn.Linear(6, 2)}


def both(**options: Any) -> Parts:
    return lstm(bidirectional=True, **options)
