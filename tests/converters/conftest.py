"""Shared set-up of the converters' tests."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for a model."""
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture
def deadline() -> Iterator[None]:
    """Whoever counts to 2**40 is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 120)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads of torch take longer for small tensors, much longer on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
