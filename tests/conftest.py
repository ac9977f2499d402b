"""Shared set-up: quiet frameworks, repeatable hypothesis, paths."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from backends import BACKENDS
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import sampling  # noqa: E402

from npylstm.runtime import sharing  # noqa: E402

# Frameworks take a second to trace a model: no deadlines. The same examples every time:
# a failure must be there again tomorrow.
settings.register_profile(
    "npylstm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("npylstm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", action="store_true",
        help="of tables of cases, run every value of every parameter, not every combination",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """With --sample, draw by today's seed, before any test is imported."""
    if config.getoption("--sample"):
        sampling.start()


def pytest_report_header() -> str:
    """Name the seed of the sample: it repeats a failure."""
    return f"sample: {sampling.VARIABLE}={sampling.seed()}" if sampling.seed() else "sample: all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --sample, leave out combinations."""
    if config.getoption("--sample"):
        from covering import sample

        kept = sample(items)
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]


def pytest_collection_finish() -> None:
    """Where tests have imported tf_keras, let it build models quickly; leave frameworks uncollected."""
    gc.collect()
    gc.freeze()  # a million objects that stay; collections would look at them again and again
    if "tf_keras" in sys.modules:
        from quick_keras import build_quickly

        build_quickly()


@pytest.fixture(autouse=True)
def small_calls_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads share the rows of small calls, which tests have; here they need not be faster."""
    monkeypatch.setitem(sharing.LEAST_WORK, "rows", sharing.Work(1, 1))
    monkeypatch.setattr(sharing, "most_threads", lambda: 8)


@pytest.fixture(params=BACKENDS)
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
