"""Programs that carry npylstm with them: PyInstaller's folder and single file, a zip for AWS Lambda, the Docker layout.

Proves that the compiled kernels and all modules are taken along, that the bundles run where nothing but they can be
read or written, and measures their sizes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from deploy.conftest import CHECK, Installed

X = [[0.1], [0.2], [0.3], [0.4], [0.5]]
MEGABYTE = 2**20


def size(path: Path) -> int:
    """Return the bytes of a file or a folder."""
    return sum(k.stat().st_size for k in [path, *path.rglob("*")] if k.is_file())


@pytest.mark.parametrize("form", ["--onedir", "--onefile"])
def test_pyinstaller(
    form: str, installed: Installed, variables: dict[str, str], models: Path, tmp_path: Path
) -> None:
    installed.install("pyinstaller")
    command = [installed.python, "-m", "PyInstaller", form, "--name", "program", "--noconfirm"]
    data = ["--add-data", f"{models}:models", "--log-level", "ERROR"]
    subprocess.run([*command, *data, CHECK], cwd=tmp_path, env=variables, check=True)
    built = tmp_path / "dist" / "program"
    program = built / "program" if form == "--onedir" else built
    start = time.perf_counter()
    done = subprocess.run(
        [program, models], env=variables | {"TMPDIR": str(tmp_path)}, cwd="/", capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["backend"] == "native"
    assert str(installed.folder) not in found["from"]
    print(f"{form}: {size(built) / MEGABYTE:.1f} MB, {seconds:.1f} s; {json.dumps(found)}")


def call_handler(folder: Path, python: Path, variables: dict[str, str]) -> dict[str, object]:
    """Call the function as Lambda does: its folder is the current one and first on the path."""
    code = (
        "import json, sys, time; start = time.perf_counter(); import handler;"
        f"answer = handler.handler({{'inputs': {X}}}, None);"
        "print(json.dumps({**answer, 'seconds': time.perf_counter() - start}))"
    )
    settings = variables | {"PYTHONPATH": str(folder), "LAMBDA_TASK_ROOT": str(folder)}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c",
         'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; touch "$0/try" 2> /dev/null && exit 3; exec "$@"',
         folder, python, "-S", "-c", code],
        cwd=folder, env=settings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_lambda(
    installed: Installed, variables: dict[str, str], models: Path, root: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("not run: a read-only folder needs root and unshare")
    build = [root / "examples/aws_lambda/build.sh", models / "sine_keras/sine.npz"]
    settings = {**os.environ, "PYTHON": str(installed.python)}
    subprocess.run([*build, installed.wheel], cwd=tmp_path, env=settings, check=True)
    task = tmp_path / "task"
    shutil.unpack_archive(tmp_path / "function.zip", task)
    answer = call_handler(task, installed.python, variables)
    assert answer["backend"] == "native"
    archive = tmp_path / "function.zip"
    assert size(archive) < 50 * MEGABYTE  # what Lambda takes directly
    assert size(task) < 250 * MEGABYTE  # unpacked
    print(
        f"zip {size(archive) / MEGABYTE:.1f} MB, unpacked {size(task) / MEGABYTE:.1f} MB; {answer}"
    )


def test_the_commands_of_the_dockerfile(
    installed: Installed, variables: dict[str, str], models: Path, root: Path, tmp_path: Path
) -> None:
    """What its stages do, without Docker: install into a folder, copy, run with this folder alone."""
    text = (root / "examples/docker/Dockerfile").read_text(encoding="utf-8")
    run = text.split("RUN ")[1].split("\n\n")[0].replace("\\\n", "").replace("/app", str(tmp_path))
    settings = {
        **os.environ, "WHEEL": str(installed.wheel), "MODEL": "models/sine_keras/sine.npz",
        "PATH": f"{installed.python.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    subprocess.run(["sh", "-c", run], cwd=root, env=settings, check=True)
    done = subprocess.run(
        [installed.python, "-S", tmp_path / "main.py", tmp_path / "model.npz"],
        env=variables | {"PYTHONPATH": str(tmp_path / "packages")}, cwd="/", input=f"{X}\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "native" in done.stderr
    assert len(json.loads(done.stdout)) == 1
    print(f"/app: {size(tmp_path) / MEGABYTE:.1f} MB")
