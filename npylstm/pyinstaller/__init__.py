"""What PyInstaller needs to put npylstm into a program; an entry point names this folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_directories"]


def hook_directories() -> list[str]:
    """Return the folders of hooks."""
    return [str(Path(__file__).parent)]
