"""A pytest fixture for users' tests; pytest finds it if npylstm is installed.

::

    def test_export(npylstm_parity, keras_model):
        npylstm_parity("model.npz", keras_model)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def npylstm_parity() -> Callable[..., Any]:
    """Return :func:`npylstm_converters.assert_parity`."""
    from npylstm_converters import assert_parity

    return assert_parity
