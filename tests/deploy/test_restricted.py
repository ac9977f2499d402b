"""Where a process may do little: no file can be written, no HOME, little memory.

Proves that npylstm with compiled kernels writes nothing and needs neither a cache nor a home folder, and that it needs
at most 128 MB of address space more than ``import numpy``.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from deploy.conftest import CHECK, Installed, run_check

EXTRA = 128 * 2**20

# In a namespace of its own, every file system is made read-only, the last mounted first. Pseudo file systems may refuse.
READ_ONLY = """
tac /proc/self/mountinfo | while read -r _ _ _ _ point _; do
    mount -o remount,bind,ro "$point" 2> /dev/null || echo "stays writable: $point" >&2
done
for folder in /tmp /var/tmp /dev/shm "$PLACE"; do
    if touch "$folder/try" 2> /dev/null; then echo "$folder can be written" >&2; exit 3; fi
done
exec "$@"
"""


def test_read_only_without_a_home(
    installed: Installed, variables: dict[str, str], models: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("not run: a read-only file system needs root and unshare")
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"]
    # A user without an entry in /etc/passwd, so without a home folder; it may read what root may.
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=65432", "--regid=65432", "--clear-groups", *may_read]
    settings = variables | {"PLACE": str(installed.folder)}
    for command in ([*namespace], [*namespace, *user]):
        found = run_check([*command, installed.python], models, settings)
        assert found["backend"] == "native"
        assert found["written"] == []


def test_that_writing_is_seen(
    installed: Installed, variables: dict[str, str], tmp_path: Path
) -> None:
    """The list of written files would not be empty."""
    code = CHECK.read_text(encoding="utf-8").split("import numpy as np")[0]
    code += f"\nopen({str(tmp_path / 'file')!r}, 'w'); os.mkdir({str(tmp_path / 'folder')!r}); print(written)"
    done = subprocess.run(
        [installed.python, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert "file" in done.stdout
    assert "os.mkdir" in done.stdout


def address_space_of_numpy(installed: Installed, variables: dict[str, str]) -> int:
    """Return the most address space that ``import numpy`` uses, in bytes."""
    code = "import numpy; print(open('/proc/self/status').read())"
    done = subprocess.run(
        [installed.python, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    line = next(k for k in done.stdout.splitlines() if k.startswith("VmPeak"))
    return int(line.split()[1]) * 1024


def test_little_memory(installed: Installed, variables: dict[str, str], models: Path) -> None:
    limit = address_space_of_numpy(installed, variables) + EXTRA
    found = run_check(
        [installed.python], models, variables,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert found["backend"] == "native"
