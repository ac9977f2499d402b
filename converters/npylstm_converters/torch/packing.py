"""Packed sequences while a module is traced: padded tensors with lengths.

torch.export cannot trace packing, because the sizes of packed data depend on the lengths' values.
During a trace, ``pack_padded_sequence`` returns a ``PackedSequence`` whose data are the padded
sequences ``(batch, steps, features)`` and whose batch sizes are the lengths ``(batch,)``, in the
order of the input. Recurrent modules receive them through an operation of the program,
``npylstm::with_lengths``; ``pad_packed_sequence`` is another, ``npylstm::padded``. torch computes
neither. Imports torch when called.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FixedLengthsError", "packing_traced", "packs", "removes_steps"]


class FixedLengthsError(Exception):
    """Sequences are packed with a list of integers, which a trace would keep."""

    def __init__(self, lengths: list[int]) -> None:
        super().__init__(f"sequences are packed with lengths that are fixed: {lengths!r:.80}")
        self.lengths = lengths


_TRACING: list[int] = []  # the thread that traces; others pack as usual
_ORIGINALS: dict[str, Callable[..., Any]] = {}
_FIXED: list[bool] = []  # whether lists of lengths are kept


@contextlib.contextmanager
def packing_traced(fixed: bool = False) -> Iterator[None]:
    """Replace packing of sequences, in this thread, by operations that can be traced.

    Parameters
    ----------
    fixed
        Keep lists of lengths; else they raise :class:`FixedLengthsError`.
    """
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor
    from torch.nn.utils import rnn

    _define_operations()
    with contextlib.ExitStack() as stack:
        for ours in (_pack_padded_sequence, _pad_packed_sequence):
            _replace_code(stack, getattr(rnn, ours.__name__[1:]), ours)
        for cls in (nn.LSTM, nn.GRU, nn.RNN):
            _replace(stack, cls, "forward", _forward_of(cls.forward))
        for cls in (Tensor, FakeTensor, FunctionalTensor):
            for name in ("tolist", "numpy"):
                if cls is Tensor or name in vars(cls):
                    _replace(stack, cls, name, _kept_as_tensor(getattr(cls, name)))
        _TRACING.append(threading.get_ident())
        stack.callback(_TRACING.pop)
        _FIXED.append(fixed)
        stack.callback(_FIXED.pop)
        yield


def _replace(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)


def _replace_code(stack: contextlib.ExitStack, function: Any, ours: Any) -> None:
    """Replace a function's code: whoever imported the function by name calls the same object."""
    _ORIGINALS[function.__name__] = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    stack.callback(setattr, function, "__code__", function.__code__)
    function.__code__ = ours.__code__


# The code of these two runs as that of torch's functions, so it imports what it uses.
def _pack_padded_sequence(input, lengths, batch_first=False, enforce_sorted=True):  # type: ignore[no-untyped-def]
    from npylstm_converters.torch import packing

    return packing.pack(input, lengths, batch_first, enforce_sorted)


def _pad_packed_sequence(sequence, batch_first=False, padding_value=0.0, total_length=None):  # type: ignore[no-untyped-def]
    from npylstm_converters.torch import packing

    return packing.pad(sequence, batch_first, padding_value, total_length)


def _is_traced() -> bool:
    return threading.get_ident() in _TRACING


def pack(x: Any, lengths: Any, batch_first: bool, enforce_sorted: bool) -> Any:
    """Return a packed sequence whose data are padded, if this thread traces."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    if not _is_traced():
        return _ORIGINALS["pack_padded_sequence"](x, lengths, batch_first, enforce_sorted)
    x = x if batch_first else x.transpose(0, 1)
    if not isinstance(lengths, torch.Tensor):
        lengths = [*lengths]
        if not _FIXED[-1] and all(isinstance(n, int) for n in lengths):
            raise FixedLengthsError(lengths)
        lengths = torch.stack([torch.as_tensor(n) for n in lengths])
    if isinstance(lengths.shape[0], int) and not isinstance(x.shape[0], int):
        raise ValueError(
            f"pack_padded_sequence gets {lengths.shape[0]} lengths that are fixed in the module: "
            "pass them to forward as a tensor, so that other batches have others"
        )
    torch._check(lengths.shape[0] == x.shape[0])
    return PackedSequence(x, lengths.to(torch.int64), None, None)


def pad(sequence: Any, batch_first: bool, padding_value: float, total_length: Any) -> Any:
    """Return padded sequences and lengths, if this thread traces.

    All steps of the input are kept. torch keeps those of the longest sequence.
    """
    import torch
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    if not _is_traced():
        return _ORIGINALS["pad_packed_sequence"](sequence, batch_first, padding_value, total_length)
    padded = torch.ops.npylstm.padded(
        sequence.data, sequence.batch_sizes, float(padding_value), total_length is None
    )
    steps = padded.shape[1]
    # A length computed from the lengths is that of the longest sequence.
    stated = total_length is not None and not free_unbacked_symbols(total_length)
    if stated and total_length != steps:
        raise ValueError(
            f"pad_packed_sequence(total_length={total_length}): expected an example of "
            f"{total_length} steps, or total_length=x.size(1) in forward, got {steps} steps"
        )
    return padded if batch_first else padded.transpose(0, 1), sequence.batch_sizes


def _forward_of(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the forward of a recurrent module, for packed sequences as above, too."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    @functools.wraps(forward)
    def traced(self: Any, input: Any, hx: Any = None) -> Any:
        if not _is_traced() or not isinstance(input, PackedSequence):
            return forward(self, input, hx)
        x = torch.ops.npylstm.with_lengths(input.data, input.batch_sizes)
        batch_first, self.batch_first = self.batch_first, True  # unused for packed sequences
        try:
            y, state = forward(self, x, hx)
        finally:
            self.batch_first = batch_first
        return PackedSequence(y, input.batch_sizes, None, None), state

    return traced


def _kept_as_tensor(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that makes lists or arrays, but keeps traced lengths as a tensor."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    @functools.wraps(method)
    def kept(self: Any, *args: Any, **options: Any) -> Any:
        traced = _is_traced() and isinstance(self, (FakeTensor, FunctionalTensor))
        if traced and self.ndim == 1 and self.dtype in (torch.int32, torch.int64):
            return self
        return method(self, *args, **options)

    return kept


def packs(program: Any) -> bool:
    """Whether a program was traced from a module that packs sequences."""
    return any(str(node.target).startswith("npylstm.") for node in program.graph.nodes)


def removes_steps(program: Any) -> bool:
    """Whether a program reads padded sequences from which torch removes steps that none fills."""
    return any(
        str(node.target) == "npylstm.padded.default" and node.args[3] and node.users
        for node in program.graph.nodes
    )


@functools.cache
def _define_operations() -> None:
    """Define the two operations in torch: their shapes, no computation."""
    import torch

    for name, more in (("with_lengths", ""), ("padded", ", float value, bool removes")):
        qualified = f"npylstm::{name}"
        torch.library.define(qualified, f"(Tensor x, Tensor lengths{more}) -> Tensor")
        torch.library.register_fake(qualified, lambda x, lengths, *_: torch.empty_like(x))
