"""States that forward keeps from call to call. Imports torch when called."""

from __future__ import annotations

from typing import Any

from npylstm import UnsupportedError
from npylstm_converters.toolkit.runners import one_line
from npylstm_converters.torch.running import copied, inference, quiet
from npylstm_converters.torch.snapshots import Snapshot

__all__ = ["kept_states"]


def kept_states(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Return the attributes in which a module keeps a state: a second call gives other outputs.

    Parameters
    ----------
    module
        A module or TorchScript that was traced; it is not changed.
    args, kwargs
        Example inputs, for both calls.

    Returns
    -------
    list of str
        Names of all attributes that the calls changed; empty if both give the same outputs.

    Raises
    ------
    UnsupportedError
        If the state is a weight, or if no attribute changed: forward keeps it elsewhere, or draws
        numbers.
    """
    import torch

    weights = {name for name, _ in module.named_parameters()}
    with inference(module), quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        before = Snapshot(module)
        try:
            first, second = (_outputs(module, args, kwargs) for _ in range(2))
        except Exception as error:  # it runs in the trace, but not outside
            raise UnsupportedError(
                f"{type(module).__name__}: forward cannot be called with the example after it was "
                f"traced: {one_line(error, 200)}"
            ) from None
        finally:
            changed = before.changed()
            before.restore_weights()
    if len(first) == len(second) and all(map(_same, first, second)):
        return []
    differs = (
        f"{type(module).__name__}: forward gives other outputs when it is called again with the "
        "same inputs"
    )
    if kept := weights.intersection(changed):
        raise UnsupportedError(f"{differs}: it keeps a state in {', '.join(sorted(kept))}")
    if not changed:
        raise UnsupportedError(
            f"{differs}, and no attribute of the module has changed: it keeps a state outside the "
            "module, or draws random numbers; pass the state into and out of forward"
        )
    return changed


def _outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return copies of all tensors among the outputs, with the same random numbers every time."""
    import torch
    from torch.utils import _pytree as pytree

    torch.manual_seed(0)
    given, named = copied((args, kwargs))
    leaves = pytree.tree_leaves(module(*given, **named))
    return [copied(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _same(a: Any, b: Any) -> bool:
    import torch

    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=1e-5, atol=1e-7, equal_nan=True))
