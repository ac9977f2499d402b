"""Importers, found by entry points in the group ``npylstm.converters``.

An importer is an object with the interface of :class:`Importer`. A third party adds its own by
an entry point of the same group in its own distribution; nothing here changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm.io.model_file import is_model
from npylstm.io.stand_ins import check_content, check_no_pointer, check_unpacked

__all__ = ["GROUP", "Importer", "Runner", "find_importer", "importers", "on_disk"]

GROUP = "npylstm.converters"

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Runner(Protocol):
    """A source loaded in its framework, ready to run.

    A runner with ``sets_lengths = True`` also takes ``lengths``, integers (batch,): the number of
    steps of each sequence that its recurrent layers read. One with ``example_sizes`` runs only
    these free sizes. One with ``activations(inputs, state)`` returns the outputs of its layers by
    the names of the spec's tensors.

    Attributes
    ----------
    description
        The framework and its version.
    sets_state
        Whether it accepts an initial state.
    sizes
        Free sizes of the spec that the framework fixes, by symbol.
    """

    description: str
    sets_state: bool
    sizes: Mapping[str, int]

    def __call__(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Any]:
        """Return all outputs by name; an empty ``state`` means zeros."""
        ...


class Importer(ABC):
    """The interface of an importer.

    Attributes
    ----------
    name
        Unique among all importers.
    options
        Keyword arguments of :meth:`convert` and :meth:`runner`.
    """

    name: str
    options: tuple[str, ...] = ()

    @abstractmethod
    def accepts(self, source: Any, head: bytes) -> bool:
        """Return whether it reads a source.

        Parameters
        ----------
        source
            A path or an object.
        head
            The first 512 bytes of a file; empty for a folder, an object, or a path without a
            file, such as the prefix of several files.

        Returns
        -------
        bool
        """

    @abstractmethod
    def convert(self, source: Any, **options: Any) -> ModelSpec:
        """Convert a source, as :func:`npylstm_converters.convert`.

        Parameters
        ----------
        source
            A path or an object that the importer accepts.
        **options
            Some of :attr:`options`.

        Returns
        -------
        ModelSpec
            Without recorded cases, except those that the source itself holds.
        """

    def can_describe(self, source: Any, **options: Any) -> bool:
        """Return whether a source has weights without an architecture, for :meth:`describe`.

        Parameters
        ----------
        source, **options
            As for :meth:`convert`.

        Returns
        -------
        bool
        """
        return False

    def describe(self, source: Any, **options: Any) -> dict[str, Any]:
        """Return the contents of a source that :meth:`can_describe`.

        Parameters
        ----------
        source, **options
            As for :meth:`convert`.

        Returns
        -------
        dict
            JSON values: ``format``, ``modules``, ``notes``, ``asked``, ``command``, ``advice``.

        Raises
        ------
        NpylstmError
            If there is nothing to list.
        """
        raise NpylstmError(f"{source}: says how its modules are joined")

    def alternatives(self, source: Any, **options: Any) -> Iterator[tuple[str, ModelSpec]]:
        """Convert a source with every alternative to the user's statements.

        Parameters
        ----------
        source, **options
            As for :meth:`convert`.

        Yields
        ------
        statement
            The alternative as a command-line option: ``--layers "rnn -> last -> fc"``.
        spec
            The model.
        """
        yield from ()

    def files(self, source: Any) -> list[str]:
        """Return the files of a source.

        Parameters
        ----------
        source
            A path or an object.

        Returns
        -------
        list of str
            The file itself, or all files in a folder; empty for an object.
        """
        if not isinstance(source, (str, os.PathLike)):
            return []
        if not os.path.isdir(source):
            return [os.fspath(source)]
        walked = os.walk(os.fspath(source))
        return [os.path.join(folder, name) for folder, _, names in walked for name in names]

    @abstractmethod
    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> Runner:
        """Load a source in its framework, to record its outputs.

        Parameters
        ----------
        source
            A path or an object.
        spec
            The converted source.
        **options
            As for :meth:`convert`.

        Returns
        -------
        Runner

        Raises
        ------
        NpylstmError
            If the framework is not installed or cannot read the source.
        """


def importers() -> list[Importer]:
    """Load every importer that can be loaded.

    Raises
    ------
    NpylstmError
        If two have the same name or none is registered.
    """
    return _load()[0]


def _load() -> tuple[list[Importer], list[str]]:
    """Return the importers, and a sentence about each one that cannot be loaded."""
    found: dict[str, Importer] = {}
    broken: list[str] = []
    for entry in entry_points(group=GROUP):
        try:
            importer: Importer = entry.load()
        except Exception as error:  # the code of a third party may raise anything
            broken.append(
                f"the importer {entry.name!r} ({entry.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            )
            continue
        if importer.name in found and found[importer.name] is not importer:
            raise NpylstmError(f"importer {importer.name!r}: registered twice in {GROUP}")
        found[importer.name] = importer
    if not found and not broken:
        raise NpylstmError(
            f"no importers in {GROUP}: install npylstm with pip, so that it has metadata"
        )
    return [*found.values()], broken


def find_importer(source: Any) -> Importer:
    """Return the importer for a source.

    Parameters
    ----------
    source
        A path or an object.

    Returns
    -------
    Importer
        The first one that accepts it.

    Raises
    ------
    FormatError
        If no importer accepts it, or it is a file in place of a model, such as a web page.
    OSError
        If the file cannot be read.
    """
    head, label = b"", type(source).__name__
    is_path = isinstance(source, (str, os.PathLike))
    if is_path:
        label = os.fspath(source)
        path = Path(source)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise FormatError(f"{label}: expected a file")
        if path.is_file():
            with open(source, "rb") as stream:
                head = stream.read(512)
            if not head:
                raise FormatError(f"{label}: is empty")
            if is_model(source):
                raise FormatError(f"{label}: is a model of npylstm already")
            check_content(source)
    loaded = importers()
    for importer in loaded:
        if importer.accepts(source, head):
            for file in importer.files(source) if not head else ():
                check_no_pointer(file)
            return importer
    if isinstance(source, (str, os.PathLike)) and not os.path.exists(source):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), label)
    if head:
        check_unpacked(source)
    names = ", ".join(i.name for i in loaded)
    reasons = [f"{label}: no importer knows this kind of source; known are: {names}", *_load()[1]]
    raise FormatError("; ".join(reasons))


@contextlib.contextmanager
def on_disk(source: Any) -> Iterator[Any]:
    """Yield a source as importers take it: bytes and open files become a temporary file.

    Errors name it ``bytes``, or as the open file is named.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        label, data = "bytes", source
    elif callable(getattr(source, "read", None)):
        name = getattr(source, "name", None)
        label, data = name if isinstance(name, str) else "file", source.read()
        if not isinstance(data, bytes):
            raise FormatError(f"{label}: expected a file opened for reading bytes (mode 'rb')")
    else:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        try:
            yield path
        except UnsupportedError as error:
            reasons = [reason.replace(str(path), label) for reason in error.reasons]
            raise UnsupportedError(reasons) from None
        except FormatError as error:
            raise FormatError(str(error).replace(str(path), label)) from None
