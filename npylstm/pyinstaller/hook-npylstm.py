"""A hook of PyInstaller: the modules that are imported by name, and the compiled kernels."""

from pathlib import Path

from PyInstaller.utils.hooks import collect_submodules, get_package_paths

_FOLDER = Path(get_package_paths("npylstm")[1]) / "native"
_KERNELS = [str(path) for path in _FOLDER.glob("kernels.*")]

hiddenimports = collect_submodules("npylstm", lambda name: name != "npylstm.pyinstaller")
datas = [(path, "npylstm/native") for path in _KERNELS]
# With compiled kernels Numba and LLVM are 200 MB that nothing uses.
excludedimports = ["numba", "llvmlite"] if _KERNELS else []
