"""Run the tests of the kernels, or each Nth of them, with the npylstm that is installed here.

    python kernel_tests.py PYTHON N [options of pytest]

Tests that start processes start PYTHON, the program that starts this Python. What is imported is never the checkout's
package: its folder is not on the path. Only NumPy, pytest and hypothesis are needed.
"""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = (
    "operations", "npylstm/test_lstm.py", "npylstm/test_recurrent.py", "npylstm/test_masks.py",
    "npylstm/test_other_layers.py", "npylstm/test_products.py", "npylstm/test_session.py",
    "npylstm/test_session_errors.py", "npylstm/test_session_files.py", "npylstm/test_session_states.py",
    "npylstm/test_session_streams.py", "npylstm/test_pool.py", "npylstm/test_pool_errors.py",
    "npylstm/test_pool_files.py", "npylstm/test_model.py", "npylstm/test_thread_group.py",
    "npylstm/test_native.py", "npylstm/test_doctor.py", "npylstm/test_activations.py",
    "npylstm/test_numpy_engine.py", "npylstm/test_threads.py",
)  # fmt: skip


class EachNth:
    """A plugin of pytest that leaves out tests."""

    def __init__(self, n):
        self.n = n

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        kept = items[:: self.n]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


if __name__ == "__main__":
    sys.executable, every, *options = sys.argv[1:]
    # Not the checkout's folder, which has the package's sources.
    sys.path[:] = [path for path in sys.path if path and Path(path).resolve() != TESTS.parent]
    files = [str(TESTS / name) for name in FILES]
    settings = ["--rootdir", str(TESTS.parent), "-c", str(TESTS.parent / "pyproject.toml")]
    quiet = ["-q", "-p", "no:cacheprovider", "--sample"]
    sys.exit(pytest.main([*settings, *quiet, *options, *files], plugins=[EachNth(int(every))]))
