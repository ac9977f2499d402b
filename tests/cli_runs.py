"""Run the command line within the process."""

from __future__ import annotations

from typing import Any

from npylstm.cli import main


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err
