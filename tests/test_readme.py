"""The README does what it says: its snippets run in order, its commands work, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from backends import COMPILED

from npylstm.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the project to the README, in which files may be made."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    np.save(tmp_path / "x.npy", np.zeros((2, 5, 1)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).splitlines()
    return [line for line in lines if line.startswith("npylstm ")]


def test_snippets_and_commands_in_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) >= 5
    done = 0
    scope: dict[str, object] = {}
    for kind, code in re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL):
        if kind == "python":
            exec(code, scope)
            done += 1
            continue
        for line in code.splitlines():
            if line.startswith("npylstm "):
                arguments = shlex.split(line, comments=True)[1:]
                if arguments[0] == "convert":
                    arguments += ["--record", "0"]  # recording is tested elsewhere
                assert main(arguments) == 0, line
                done += 1
    assert done >= 8
    assert (here / "gates.png").stat().st_size > 10_000
    assert np.load(here / "y.npy").shape == (2, 1)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))
    assert listed == set(re.findall(r"^npylstm (\w+) ", "\n".join(blocks("text")), re.MULTILINE))


def test_the_example_of_a_verdict_is_current(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", "models/sine_keras/sine.npz", "--backend", COMPILED])
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict in TEXT
