"""Check, before anything runs, that output files replace nothing that would be lost."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from npylstm.cli.arrays import STANDARD
from npylstm.errors import NpylstmError
from npylstm.io.model_file import is_model

__all__ = ["check_model", "check_page", "check_target", "check_written"]


def check_name(path: str) -> None:
    """Check that a file that is to be written has a name and a folder."""
    if not path:
        raise NpylstmError("expected the name of a file to write, got an empty one")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise NpylstmError(f"{path}: there is no folder {folder}")


def check_written(path: str | None, *reads: str | None) -> None:
    """Check that an output file replaces neither an input nor a model."""
    if path is None or path == STANDARD:
        return
    check_name(path)
    if not os.path.exists(path):
        return
    for read in filter(None, reads):
        if os.path.exists(read) and os.path.samefile(read, path):
            raise NpylstmError(f"{path}: is read here, and would be lost; give another name")
    if os.path.isfile(path) and is_model(path):
        raise NpylstmError(f"{path}: is a model, which would be lost; give another name")


def check_page(path: str | None, *reads: str | None) -> None:
    """Check the name of an HTML page, and that it replaces no input."""
    if path is not None:
        from npylstm.parity import page

        check_name(path)
        page.check_name(path)
        check_written(path, *reads)


def check_target(options: argparse.Namespace, importer: Any) -> None:
    """Check that the output of a conversion replaces no source, and no file but a model."""
    given = (options.architecture, options.example, options.check_input, options.check_output)
    sources = {source: f"is {source}" for source in (*importer.files(options.source), *given)}
    check_model(options.output, sources | {options.source: "is the source itself"}, options.force)


def check_model(target: str, sources: Mapping[str | None, str], force: bool) -> None:
    """Check the name of a model to write.

    ``sources`` are files that are read, with what to say of the target if it is the same file.
    """
    check_name(target)
    if not os.path.exists(target):
        return
    for source, what in sources.items():
        if source and os.path.exists(source) and os.path.samefile(source, target):
            raise NpylstmError(
                f"{target}: {what}, which would be lost; give another name for the .npz"
            )
    if os.path.isdir(target):
        raise NpylstmError(f"{target}: is a folder; give the name of the .npz to write")
    if not force and not is_model(target):
        raise NpylstmError(
            f"{target}: exists and is no npylstm model; give another name, or --force"
        )
