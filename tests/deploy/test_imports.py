"""Ways to import the package: every Python on this machine, ``python -S``, the wheel itself as a zip file.

Proves that one wheel serves all versions of Python, that nothing needs the module ``site``, and that a package in a zip
file, from which no library can be loaded, computes with NumPy and says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deploy.conftest import Installed, run_check
from deploy.environments import install_wheels

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def find_python(version: str) -> str | None:
    """Return a Python of this version, from the path or from pyenv."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin"))
    places = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    found = shutil.which(f"python{version}", path=places)
    works = found and subprocess.run([found, "-c", ""], capture_output=True, check=False)
    return found if works and works.returncode == 0 else None


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python(
    version: str, wheel: Path, variables: dict[str, str], models: Path, tmp_path: Path
) -> None:
    python = find_python(version)
    if python is None:
        pytest.skip(f"not run: there is no Python {version} here")
    platforms = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
    install_wheels(tmp_path, version, platforms, "numpy", str(wheel))
    found = run_check([python, "-S"], models, variables | {"PYTHONPATH": str(tmp_path)})
    assert found["python"].startswith(version)
    assert found["backend"] == "native"


def test_without_site(installed: Installed, variables: dict[str, str], models: Path) -> None:
    settings = variables | {"PYTHONPATH": str(installed.packages)}
    found = run_check([sys.executable, "-S"], models, settings)
    assert Path(found["from"]).is_relative_to(installed.packages)
    assert found["backend"] == "native"


def test_from_a_zip_file(installed: Installed, variables: dict[str, str], models: Path) -> None:
    wheel = installed.wheel
    settings = variables | {"PYTHONPATH": str(wheel)}
    found = run_check([installed.python], models, settings)
    assert found["from"].startswith(str(wheel))
    assert found["backend"] == "numpy"
    command = [installed.python, "-m", "npylstm", "doctor"]
    done = subprocess.run(
        command, env=settings, cwd="/", capture_output=True, text=True, check=False
    )
    assert "zip" in done.stdout, done.stdout + done.stderr
