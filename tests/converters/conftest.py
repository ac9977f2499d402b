"""Shared set-up of the converters' tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from forked_reader import installed

if TYPE_CHECKING:
    from hostile_reader import Reader
    from keras_chains import Built


@pytest.fixture(scope="session", autouse=True)
def forked_hdf5_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fork the reader of HDF5 files instead of starting it; child processes start a real one."""
    if not hasattr(os, "fork"):
        yield
        return
    with installed(tmp_path_factory.mktemp("hdf5")):
        yield


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Start the process that reads hostile files of PyTorch, once for all files of tests."""
    from hostile_reader import Reader

    made = Reader(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Build Keras models of chains by name, once; nobody changes them or their files."""
    from keras_chains import build

    return functools.cache(lambda name: build(name, tmp_path_factory.mktemp(name)))
