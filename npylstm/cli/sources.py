"""The sources of conversions: their importers, and the options that go with them."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import Any

from npylstm.cli import arrays
from npylstm.errors import NpylstmError

__all__ = ["find_importer", "import_converters", "source_options"]

_OPTIONS = ("architecture", "layers", "batch_first", "key", "allow_unused", "example")


def import_converters() -> ModuleType:
    """Import the converters, which only some commands need."""
    try:
        return importlib.import_module("npylstm_converters")
    except ImportError as error:
        raise NpylstmError(f"the importers are not installed: {error}") from None


def find_importer(source: str) -> Any:
    """Return the importer of a source."""
    return import_converters().find_importer(source)


def source_options(options: argparse.Namespace, importer: Any) -> dict[str, Any]:
    """Return the options for the source as the importer's arguments; reject unknown ones."""
    given = {name: getattr(options, name) for name in _OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    foreign = [name for name in given if name not in importer.options]
    if foreign:
        option = foreign[0].replace("_", "-")
        raise NpylstmError(f"--{option} does not go with a source of {importer.name}")
    if "example" in given:
        given["example"] = arrays.read_example(given["example"])
    return given
