"""Shared set-up of the converters' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from forked_reader import installed


@pytest.fixture(scope="session", autouse=True)
def forked_hdf5_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fork the reader of HDF5 files instead of starting it; child processes start a real one."""
    if not hasattr(os, "fork"):
        yield
        return
    with installed(tmp_path_factory.mktemp("hdf5")):
        yield
