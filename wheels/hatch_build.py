"""Hatch's build hook: with ``NPYLSTM_BUILD_NATIVE=1`` the wheel contains compiled kernels.

``NPYLSTM_BUILD_PLATFORM`` names one of the platforms of ``wheels/platforms.py``; by default the
kernels are for this machine. Without the variables nothing is compiled, and no tools are needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which hatchling needs, too


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library of compiled kernels and its manifest to a wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what a build in isolation installs: the pinned tools of the group ``kernels``."""
        if not _is_requested():
            return []
        with open(Path(self.root) / "pyproject.toml", "rb") as file:
            tools: list[str] = tomllib.load(file)["dependency-groups"]["kernels"]
        return tools

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the library, and name the wheel for its platform."""
        if not _is_requested() or self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)
        from wheels.platforms import PLATFORMS, platform_here

        name = os.environ.get("NPYLSTM_BUILD_PLATFORM")
        platform = PLATFORMS.get(name) if name else platform_here()
        if platform is None:
            names = ", ".join(PLATFORMS)
            sys.exit(f"no kernels can be compiled for {name or 'this machine'}; platforms: {names}")
        folder = Path(self.root) / "build" / "native" / platform.name
        command = [sys.executable, "-m", "wheels.library", platform.name, str(folder)]
        subprocess.run(command, check=True, cwd=self.root)
        for file in (platform.file, "kernels.json"):
            build_data["force_include"][str(folder / file)] = f"npylstm/native/{file}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform.tag}"


def _is_requested() -> bool:
    return os.environ.get("NPYLSTM_BUILD_NATIVE", "0") not in ("", "0")
