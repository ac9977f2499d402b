"""Checks that a traced program equals the module for all sizes, not only for the example's.

Tracing follows one branch of ``forward``. torch stores its assumptions about sizes as guards: some
are conditions of the code (``if x.size(1) > 4``), many are torch's own. A trial separates them: it
runs the module with sizes that violate a guard, and compares the outputs.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import Model, ModelSpec, NpylstmError, UnsupportedError
from npylstm.ops.shapes import BATCH, STEPS
from npylstm_converters.toolkit.runners import fixed_sizes
from npylstm_converters.torch.exported_sizes import readable
from npylstm_converters.torch.fast_paths import without_fast_paths
from npylstm_converters.torch.packing import packs, removes_steps
from npylstm_converters.torch.running import inference, quiet

__all__ = ["check_branches"]

_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 33, 65, 129, 300, 1025)
_FEW = _SIZES[:9]
# Sizes that a condition names are tried up to this one.
_LONGEST = 5000
# Loops are compared at so many more steps: conditions on the step (t % 100) show there.
_LONG_LOOP = 515
# Another branch of forward changes the first digits of the largest outputs; rounding does not.
_TOLERANCE, _ROUNDING = 1e-3, 1e-6


def check_branches(module: Any, program: Any, spec: ModelSpec, original: Any = None) -> list[str]:
    """Run a module with other sizes than the example's and compare with its conversion.

    Parameters
    ----------
    module
        The traced module.
    program
        The program of ``torch.export``.
    spec
        The converted program.
    original
        What to run, if it is not the module itself: TorchScript.

    Returns
    -------
    list of str
        Notes for the user: sizes at which the module drops axes of one.

    Raises
    ------
    UnsupportedError
        Lists the conditions under which the module computes something else, or says that it
        does for the example itself.
    """
    trial = _Trial(module, program, spec, module if original is None else original)
    if trial.compare({}) == "other numbers":
        raise UnsupportedError(
            f"{type(module).__name__}: the conversion gives other numbers than forward for the "
            "example itself: forward does something that its trace does not show"
        )
    reasons, notes = [], []
    for symbol in trial.symbols:
        verdict = trial.compare({symbol: 1})
        if verdict == "other shape":
            notes.append(f"{symbol} of 1: PyTorch drops axes of size one there, npylstm keeps them")
        elif verdict == "other numbers":
            reasons.append(
                f"forward computes something else for {symbol} of 1: it drops axes of one there, "
                "or an in-place operation (inplace=True) changes a tensor that is a copy otherwise"
            )
    for code in getattr(program, "_guards_code", None) or ():
        found = list(trial.breaking(code))
        broken = [sizes for sizes in found if max(sizes.values()) <= _LONGEST]
        if found and not broken:
            notes.append(f"forward was not compared where {readable(code)} does not hold")
        # Some sizes from both ends: at one step the outputs may agree by chance.
        for sizes in [*broken[:2], *broken[2:][-2:]]:
            if trial.compare(sizes) == "other numbers":
                listed = ", ".join(f"{k} of {v}" for k, v in sizes.items())
                reasons.append(
                    f"forward takes another way unless {readable(code)} (for {listed}, say): "
                    "write it without the branch, or convert one module for each way"
                )
                break
    if reasons:
        raise UnsupportedError(reasons)
    verdict = trial.compare({}, fills=False) if trial.packs else "same"
    if verdict != "same" or removes_steps(program):
        text = "where no sequence fills all steps, PyTorch's pad_packed_sequence removes the rest"
        if verdict != "fewer steps":  # the numbers of the example may hide it
            may = "depends" if verdict == "other numbers" else "may depend"
            text += f", and what forward computes {may} on it: pad to the longest sequence only"
        notes.append(text)
    return notes


def check_loops(module: Any, program: Any, spec: ModelSpec, original: Any = None) -> list[str]:
    """Check that a model whose unrolled loops were written as layers equals the module.

    Parameters are those of :func:`check_branches`. It must agree at the example's size, and at
    others for which the module runs.

    Raises
    ------
    UnsupportedError
        If it does not.
    """
    trial = _Trial(module, program, spec, module if original is None else original)
    example = trial.example
    free = [symbol for symbol in trial.symbols if symbol != BATCH]
    for more in (0, 1, -1, 4):
        sizes = {symbol: max(1, example[symbol] + more) for symbol in free}
        if trial.compare(sizes, strict=True) not in ("same", "other shape"):
            raise UnsupportedError([f"a loop differs for {sizes}"])
    for symbol in free:
        if trial.compare({symbol: example[symbol] + _LONG_LOOP}) == "other numbers":
            raise UnsupportedError([f"a loop differs for many {symbol}"])
    listed = ", ".join(f"{k} free" for k in free)
    return [f"loops over steps: {listed}, as compared with the module at other lengths"]


class _Trial:
    """A module and its conversion, run with any sizes."""

    def __init__(self, module: Any, program: Any, spec: ModelSpec, original: Any) -> None:
        import torch
        from torch.utils import _pytree as pytree

        self._module, self._spec, self._original = module, spec, original
        self._model = Model(spec, "numpy")
        self._leaves, self._structure = pytree.tree_flatten(program.example_inputs)
        tensors = [v for v in self._leaves if isinstance(v, torch.Tensor)]
        self.example = fixed_sizes(spec.inputs, [tensor.shape for tensor in tensors])
        self.symbols = tuple(self.example)
        self.packs = packs(program)

    def _arguments(
        self, sizes: Mapping[str, int], on: str, fills: bool = True
    ) -> tuple[Any, Any, list[Any]]:
        """Return the example with other sizes: its entries repeated, or on the meta device.

        Of lengths, the first is the number of steps, if the sequences may fill all.
        """
        import torch
        from torch.utils import _pytree as pytree

        wanted = {**self.example, **sizes}
        specs = iter(self._spec.inputs)
        leaves, tensors = [], []
        for leaf in self._leaves:
            if not isinstance(leaf, torch.Tensor):
                leaves.append(leaf)
                continue
            shape = [wanted[d] if isinstance(d, str) else d for d in next(specs).shape]
            if on == "meta":
                made = torch.empty(shape, dtype=leaf.dtype, device="meta")
            else:
                made = _varied(leaf.detach())
                for axis, size in enumerate(shape):
                    made = made.index_select(axis, torch.arange(size) % made.shape[axis])
                if self.packs and made.ndim == 1 and not made.dtype.is_floating_point:
                    longest = max(1, wanted.get(STEPS, 1) - (not fills))
                    made = made.clamp(1, longest)
                    made[:1] = longest
                    made = made.sort(descending=True).values
            leaves.append(made)
            tensors.append(made)
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return args, kwargs, tensors

    def breaking(self, code: str) -> Iterator[dict[str, int]]:
        """Yield sizes that violate a guard."""
        for sizes in self._candidates(code):
            args, kwargs, _ = self._arguments(sizes, "meta")
            given = inspect.signature(self._module.forward).bind(*args, **kwargs).arguments
            try:
                if not eval(code, {"L": given}):  # torch wrote this expression, over sizes only
                    yield sizes
            except Exception:  # a guard on something other than sizes
                return

    def _candidates(self, code: str) -> Iterator[dict[str, int]]:
        """Yield sizes of all magnitudes, and those on both sides of the numbers in a guard."""
        numbers = {int(n) for n in re.findall(r"(?<![\w.\[])\d+(?![\w.\]])", code)}
        bounds = numbers | {n // m for n in numbers for m in numbers if m}
        near = {n + k for n in bounds for k in (-1, 0, 1) if n + k > 0}
        for symbol, size in itertools.product(self.symbols, sorted({*_SIZES, *near})):
            yield {symbol: size}
        for pair in itertools.combinations(self.symbols, 2):
            for sizes in itertools.product(_FEW, _FEW):
                yield dict(zip(pair, sizes, strict=True))

    def compare(self, sizes: Mapping[str, int], fills: bool = True, strict: bool = False) -> str:
        """Return how the module's outputs differ from the conversion's.

        If one of them raises an error, they do not differ, unless ``strict``.
        """
        import torch
        from torch.utils import _pytree as pytree

        args, kwargs, tensors = self._arguments(sizes, "cpu", fills)
        inputs = [t.numpy().copy() for t in tensors]
        try:
            with inference(self._original), quiet(), without_fast_paths(), torch.no_grad():
                leaves = pytree.tree_leaves(self._original(*args, **kwargs))
            ours = self._model.predict(inputs if len(inputs) > 1 else inputs[0])
        except (NpylstmError, RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            return "error" if strict else "same"
        theirs = [leaf.detach().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
        mine = list(ours.values()) if isinstance(ours, dict) else [ours]
        if len(mine) != len(theirs):
            return "other numbers"
        verdict = "same"
        for a, b in zip(mine, theirs, strict=True):
            if self.packs and _is_longer(a, b):
                a, verdict = a[tuple(map(slice, b.shape))], "fewer steps"
            if a.shape != b.shape:
                if _without_ones(a.shape) != _without_ones(b.shape):
                    return "other numbers"
                verdict = "other shape"
            scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
            allowed = _TOLERANCE * scale + _ROUNDING
            if not np.allclose(a.ravel(), b.ravel(), 0, allowed, equal_nan=True):
                return "other numbers"
        return verdict


def _varied(tensor: Any) -> Any:
    """Return a copy; numbers that differ, if all are the same: zeros show few differences."""
    import torch

    if not tensor.dtype.is_floating_point or tensor.numel() < 2 or tensor.min() != tensor.max():
        return tensor.clone()
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)


def _is_longer(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether an array has more entries than another along one axis, and else its shape."""
    pairs = list(zip(a.shape, b.shape, strict=False))
    return a.ndim == b.ndim and [m > n for m, n in pairs].count(True) == 1 == sum(
        m != n for m, n in pairs
    )


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [d for d in shape if d != 1]
