"""Shared set-up: quiet frameworks, repeatable hypothesis, paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

# Frameworks take a second to trace a model: no deadlines. The same examples every time:
# a failure must be there again tomorrow.
settings.register_profile(
    "npylstm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("npylstm")


def pytest_collection_finish() -> None:
    """Where tests have imported tf_keras, let it build models quickly."""
    if "tf_keras" in sys.modules:
        from quick_keras import build_quickly

        build_quickly()


@pytest.fixture(params=["numpy", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both back ends."""
    return str(request.param)


@pytest.fixture(scope="session")
def root() -> Path:
    """Where the project stands."""
    return ROOT


@pytest.fixture(scope="session")
def keras_data() -> Path:
    """Files that old versions of Keras wrote."""
    return ROOT / "tests" / "data" / "keras"
