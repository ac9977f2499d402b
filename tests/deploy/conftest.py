"""Fixtures: the wheel of this machine, and a fresh environment with NumPy and this wheel, outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deploy.wheel_files import find_wheel

CHECK = Path(__file__).parent / "check.py"


@dataclass(frozen=True)
class Installed:
    """A virtual environment with NumPy and the wheel."""

    folder: Path
    wheel: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder that packages are imported from."""
        return next(self.folder.glob("lib/python*/site-packages"))

    def install(self, *requirements: str) -> None:
        """Install packages."""
        pip = [str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, *requirements], check=True)


def run_check(
    command: Sequence[str | Path], models: Path, variables: Mapping[str, str], **options: Any
) -> dict[str, Any]:
    """Run check.py with a command that ends in a Python, with these environment variables and no others."""
    done = subprocess.run(
        [*command, CHECK, models], env=variables, capture_output=True, text=True, check=False,
        cwd="/", **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(found))
    return found


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel for this machine."""
    path = find_wheel()
    print(path.name)
    return path


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """NumPy and the wheel in a fresh virtual environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    place = Installed(folder, wheel)
    place.install("numpy", str(wheel))
    return place


@pytest.fixture
def variables() -> dict[str, str]:
    """Environment variables without HOME, and without any that choose an engine or a cache."""
    kept = ("PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture
def models(root: Path) -> Path:
    """The bundled models."""
    return root / "models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("deploy")
