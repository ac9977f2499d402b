"""Keep sizes free while torch.export traces a module. Imports torch when called."""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["free_sizes"]


def _lstm_shape(x: Any, hx: Any, weights: Any, *rest: Any) -> Any:
    import torch

    output = _rnn_output(x, hx[0], weights, *rest)
    if not isinstance(hx[1].shape[-2], int):  # c has the same batch as h
        torch._check(hx[1].shape[-2] == hx[0].shape[-2])
        torch._check(hx[1].shape[-1] == weights[0].shape[0] // 4)
    return output, hx[0].new_empty(hx[0].shape), hx[1].new_empty(hx[1].shape)


def _rnn_shape(x: Any, hx: Any, weights: Any, *rest: Any) -> Any:
    return _rnn_output(x, hx, weights, *rest), hx.new_empty(hx.shape)


def _rnn_output(
    x: Any, h: Any, weights: Any, *options: Any,
) -> Any:  # fmt: skip
    """Return an empty tensor in the shape of a recurrent op's output; check the inputs' sizes."""
    import torch

    *_, bidirectional, batch_first = options  # number of layers, and training options

    torch._check(x.shape[-1] == weights[0].shape[1])
    batch = h.shape[-2]
    if x.ndim == 3 and not isinstance(batch, int):  # constant zeros do not fix the batch
        torch._check(batch == x.shape[0 if batch_first else 1])
        torch._check(h.shape[-1] == weights[1].shape[1])
    made = (*x.shape[:-1], h.shape[-1] * (2 if bidirectional else 1))
    if x.ndim == 3 and batch_first:  # torch computes with the steps first
        return x.new_empty((made[1], made[0], made[2])).transpose(0, 1)
    return x.new_empty(made)


def _max_pool_shape(
    x: Any, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    first = [v[0] if isinstance(v, (list, tuple)) else v for v in (size, padding, dilation)]
    window, before, spread = first
    step = (stride[0] if isinstance(stride, (list, tuple)) else stride) if stride else window
    reach = x.shape[-1] + 2 * before - spread * (window - 1) - 1
    made = (reach + (step - 1 if ceil else 0)) // step + 1
    return x.new_empty((*x.shape[:-1], made))


def _taken_shape(x: Any, indices: Any, dim: int) -> Any:
    """Return an empty tensor for ``take_along_dim``: along other axes the indices are broadcast."""
    import torch

    sizes = [*torch.broadcast_shapes(x.select(dim, 0).shape, indices.select(dim, 0).shape)]
    sizes.insert(dim % x.ndim, indices.shape[dim])
    return x.new_empty(sizes)


@contextlib.contextmanager
def free_sizes() -> Iterator[None]:
    """Make torch.export infer the shapes of some ops without decomposing them, and ``len``.

    While tracing, torch infers the shape of a recurrent op by a Python loop over the time steps,
    which fixes their number. Pooling by two-dimensional ops does, too. Shapes alone need neither.
    ``len(x)`` returns a Python integer, which fixes the size, too.
    """
    import torch
    from torch._C import DispatchKey
    from torch._decomp import decomposition_table

    aten = torch.ops.aten
    shapes = {
        aten.max_pool1d.default: _max_pool_shape,
        aten.take_along_dim.default: _taken_shape,
        aten.lstm.input: _lstm_shape,
        aten.gru.input: _rnn_shape,
        aten.rnn_tanh.input: _rnn_shape,
        aten.rnn_relu.input: _rnn_shape,
    }
    saved = {op: dict(op.py_kernels) for op in shapes}
    rules: dict[Any, Any] = decomposition_table  # these come first when torch decomposes a program
    decompositions = {op: rules[op] for op in shapes if op in rules}
    plain = builtins.len
    thread = threading.get_ident()

    def size_of(values: Any) -> Any:
        traced = threading.get_ident() == thread and isinstance(values, torch.Tensor)
        return values.shape[0] if traced and values.ndim else plain(values)

    try:
        rules.update(shapes)
        builtins.len = size_of
        keys = (DispatchKey.Autograd, DispatchKey.CompositeImplicitAutograd, DispatchKey.Meta)
        for op, shape in shapes.items():
            op.py_kernels.update(dict.fromkeys(keys, shape))
            op._dispatch_cache.clear()
        yield
    finally:
        builtins.len = plain
        for op in shapes:
            del rules[op]
        rules.update(decompositions)
        for op, kernels in saved.items():
            op.py_kernels.clear()
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()
