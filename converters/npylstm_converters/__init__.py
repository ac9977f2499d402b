"""Importers for npylstm: from a trained model to a :class:`npylstm.ModelSpec`.

>>> import npylstm, npylstm_converters as nc
>>> spec = nc.convert("models/sine_keras/sine.keras")
>>> spec["lstm"].weights["W_i"].shape
(1, 100)
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from npylstm import ModelSpec, NpylstmError
from npylstm_converters.author import AuthorCheck, check_author
from npylstm_converters.comparing import assert_parity, compare
from npylstm_converters.recording import make_cases, record
from npylstm_converters.registry import GROUP, Importer, Runner, find_importer, on_disk

if TYPE_CHECKING:
    from npylstm_converters.keras import from_keras
    from npylstm_converters.tfjs import from_tfjs
    from npylstm_converters.torch import from_torch

__all__ = [
    "AuthorCheck",
    "Importer",
    "Runner",
    "assert_parity",
    "check_author",
    "compare",
    "convert",
    "find_importer",
    "from_keras",
    "from_tfjs",
    "from_torch",
    "make_cases",
    "record",
]


def convert(source: Any, **options: Any) -> ModelSpec:
    """Convert a model file or object of any supported framework.

    Parameters
    ----------
    source
        A path of a file or folder, recognised by its content and not its suffix; the bytes of a
        file, or an open binary file; or a model object.
    **options
        Arguments of the framework's function, such as ``architecture`` of :func:`from_keras`.

    Returns
    -------
    ModelSpec
        Without recorded cases, except those that the file itself holds; :func:`record` makes some.

    Raises
    ------
    UnsupportedError
        If something is not supported; the message lists all reasons.
    FormatError
        If the file is damaged or its format is unknown.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> convert("models/sine_keras/sine.keras").outputs
    ('output',)
    """
    with on_disk(source) as source:
        importer = find_importer(source)
        unknown = sorted(set(options) - set(importer.options))
        if unknown:
            known = ", ".join(importer.options) or "none"
            raise NpylstmError(f"{importer.name} sources take no {unknown[0]!r}, expected: {known}")
        return importer.convert(source, **options)


def __getattr__(name: str) -> Any:
    """Import an importer's function when it is used: ``from_x`` of the entry point ``x``."""
    for entry in entry_points(group=GROUP):
        if name == f"from_{entry.name}":
            return getattr(importlib.import_module(entry.module), name)
        if entry.module == f"{__name__}.{name}":
            return importlib.import_module(entry.module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
