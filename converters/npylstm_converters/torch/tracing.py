"""Tracing a module with torch.export. Imports torch when called."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from npylstm import UnsupportedError
from npylstm_converters.torch.aliasing import functional
from npylstm_converters.torch.batches import repeated
from npylstm_converters.torch.explaining import (
    assigns_weights,
    explain,
    returns_unknown_type,
)
from npylstm_converters.torch.free_sizes import free_sizes
from npylstm_converters.torch.packing import FixedLengthsError, packing_traced
from npylstm_converters.torch.running import (
    copied,
    inference,
    quiet,
    register_dataclasses,
    weights_kept,
)

__all__ = ["export_module"]


# torch.export patches functions of torch and Python while it runs: only one may run.
_LOCK = threading.RLock()


def export_module(
    module: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    free: Callable[[Any], Any] | None = None,
    widen: bool = True,
    fixed_lengths: bool = False,
    settled: bool = False,
) -> Any:
    """Return the exported program of a module in inference mode.

    Parameters
    ----------
    module
        A ``torch.nn.Module``; it is not changed.
    args, kwargs
        Example inputs.
    free
        The free sizes of a tensor: a dictionary as in ``dynamic_shapes``. By default all that the
        module does not fix.
    widen
        Add a second sample to an example of one sample.
    fixed_lengths
        Keep lists of lengths that forward packs with. A list among the arguments becomes a tensor.
    settled
        Ignore that forward replaces its weights: they have the values that it gives them.

    Returns
    -------
    torch.export.ExportedProgram

    Raises
    ------
    UnsupportedError
        With torch's reason, if it cannot be traced.
    """
    import torch

    try:
        call = inspect.signature(module.forward)
        given = call.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise UnsupportedError(
            f"{type(module).__name__}: the example does not fit forward{call}: {error}"
        ) from None
    with _LOCK, inference(module), quiet(), torch.no_grad():
        try:
            example: tuple[tuple[Any, ...], dict[str, Any]] = copied((args, dict(kwargs)))
            if widen:
                example = repeated(module, *example, size=1) or example
            given = call.bind(*example[0], **example[1]).arguments
            shapes = _shapes(dict(given), free or _free)
            with free_sizes(), packing_traced(fixed_lengths), weights_kept(settled):
                program = functional(torch.export.export(module, *example, dynamic_shapes=shapes))
            if "PackedSequence" in str(program.call_spec.out_spec):
                raise UnsupportedError(
                    f"{type(module).__name__}: forward returns a PackedSequence: return the tensor "
                    "that pad_packed_sequence makes of it"
                )
            return program
        except UnsupportedError:
            raise
        except FixedLengthsError as error:
            changed = _with_tensor(error.lengths, (args, dict(kwargs)))
            given_lengths = changed is not None
            new_args, new_kwargs = changed if given_lengths else (args, kwargs)
            return export_module(module, new_args, new_kwargs, free, widen, not given_lengths)
        except Exception as error:  # the user's forward may raise anything
            # Not after other errors: a loop that no trace can follow may have no end.
            if not settled and (assigns_weights(error) or returns_unknown_type(error)):
                with contextlib.suppress(Exception):
                    # Weights that forward assigns have their values after it has run.
                    register_dataclasses(module(*copied(args), **copied(dict(kwargs))))
                    settled = True
                if settled:
                    return export_module(module, args, kwargs, free, widen, fixed_lengths, True)
            raise UnsupportedError(explain(error, module)) from None


def _shapes(value: Any, free: Callable[[Any], Any]) -> Any:
    """Return dynamic_shapes: as the arguments, but with the fields of dataclasses as lists."""
    import torch
    from torch.utils import _pytree as pytree

    if isinstance(value, torch.Tensor) or type(value) not in pytree.SUPPORTED_NODES:
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(_shapes(v, free) for v in value))
        return free(value)
    children, context = pytree.SUPPORTED_NODES[type(value)].flatten_fn(value)
    made = [_shapes(child, free) for child in children]
    if dataclasses.is_dataclass(value):
        return made
    return pytree.SUPPORTED_NODES[type(value)].unflatten_fn(made, context)


def _with_tensor(numbers: list[int], arguments: Any) -> Any:
    """Return the arguments with a tensor in place of a list of these numbers; None if none is."""
    import torch
    from torch.utils import _pytree as pytree

    def is_it(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and [*value] == numbers

    leaves, structure = pytree.tree_flatten(arguments, is_leaf=is_it)
    if not any(map(is_it, leaves)):
        return None
    made = [torch.tensor(v, dtype=torch.int64) if is_it(v) else v for v in leaves]
    return pytree.tree_unflatten(made, structure)


def _free(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    return dict.fromkeys(range(value.ndim), torch.export.Dim.AUTO)
