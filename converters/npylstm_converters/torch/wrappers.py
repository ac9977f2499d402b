"""Names without the components that wrappers of modules add."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["WRAPPERS", "without_wrappers"]

# DataParallel and DistributedDataParallel, torch.compile.
WRAPPERS = ("module", "_orig_mod")


def without_wrappers(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the wrappers' components: ``model.module.fc`` is ``model.fc``.

    A wrapper has one submodule and no tensor. So its component is removed only if it is the only
    one behind the same prefix, and not the last.

    Examples
    --------
    >>> without_wrappers(["module.a.weight", "module.b.module.c", "module.b.bias"])
    {'module.a.weight': 'a.weight', 'module.b.module.c': 'b.module.c', 'module.b.bias': 'b.bias'}
    """
    split = {name: tuple(name.split(".")) for name in names}
    behind: dict[tuple[str, ...], set[str]] = {}
    for parts in split.values():
        for k, part in enumerate(parts):
            behind.setdefault(parts[:k], set()).add(part)

    def is_wrapper(parts: tuple[str, ...], k: int) -> bool:
        return (
            parts[k] in WRAPPERS and len(behind[parts[:k]] - {""}) == 1 and parts[: k + 1] in behind
        )

    return {
        name: ".".join(part for k, part in enumerate(parts) if not is_wrapper(parts, k))
        for name, parts in split.items()
    }
