"""The sources of conversions: their importers, and the options that go with them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any

from npylstm.cli import arrays
from npylstm.errors import NpylstmError
from npylstm.ops.external import Function

__all__ = [
    "custom_functions", "find_importer", "import_converters", "refuse_source_options",
    "source_options",
]  # fmt: skip

_OPTIONS = (
    "architecture", "layers", "batch_first", "key", "allow_unused", "example", "custom",
    "constants", "dequantize",
)  # fmt: skip
_WRITTEN = {"constants": "set"}  # where an option is not called as the importer's argument


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
        option = _option(foreign[0])
        raise NpylstmError(f"--{option} does not go with a source of {importer.name}")
    if "example" in given:
        given["example"] = arrays.read_example(given["example"])
    if "custom" in given:
        given["custom"] = custom_functions(options)
    if "constants" in given:
        given["constants"] = _constants(given["constants"])
    return given


def refuse_source_options(
    options: argparse.Namespace, why: str, allowed: Collection[str] = ()
) -> None:
    """Reject options for sources where none is read, but for the allowed ones.

    Raises
    ------
    NpylstmError
        If one is given; ``why`` says why it is of no use.
    """
    for name in _OPTIONS:
        if getattr(options, name) is not None and name not in allowed:
            raise NpylstmError(f"--{_option(name)}: {why}")


def _option(name: str) -> str:
    """Return how an option is written."""
    return _WRITTEN.get(name, name).replace("_", "-")


def _constants(texts: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``--set NAME=VALUE``, by name: numbers, or lists of them.

    Raises
    ------
    NpylstmError
        If an option has another form.
    """
    constants: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            number = json.loads(value)
        except ValueError:
            number = None
        numbers = number if isinstance(number, list) else [number]
        if not name or not all(isinstance(n, (int, float)) for n in numbers):
            raise NpylstmError(
                f"--set {text}: expected NAME=VALUE with a number, true or false, or a list [1, 2]"
            )
        if name in constants:
            raise NpylstmError(f"--set {name}: is given twice")
        constants[name] = number
    return constants


def custom_functions(options: argparse.Namespace) -> dict[str, Function] | None:
    """Return the functions of ``--custom NAME=module:function``, by name; None without.

    Modules are found in the working directory first.

    Raises
    ------
    NpylstmError
        If an option has another form, or its function cannot be imported.
    """
    if not options.custom:
        return None
    functions: dict[str, Function] = {}
    for text in options.custom:
        name, _, target = text.rpartition("=")
        module, _, attribute = target.partition(":")
        if not name or not module or not attribute:
            raise NpylstmError(f"--custom {text}: expected NAME=module:function")
        if name in functions:
            raise NpylstmError(f"--custom {name}: is given twice")
        functions[name] = _imported(module, attribute, text)
    return functions


def _imported(module: str, attribute: str, text: str) -> Function:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except Exception as error:  # the user's module may raise anything
        raise NpylstmError(f"--custom {text}: {type(error).__name__}: {error}") from None
    if not callable(value):
        raise NpylstmError(f"--custom {text}: expected a function, got {type(value).__name__}")
    function: Function = value
    return function
