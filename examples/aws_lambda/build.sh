#!/bin/sh
# Makes function.zip out of a model: build.sh MODEL.npz [WHEEL]
# PYTHON is a Python of the function's version; for Graviton processors MACHINE=aarch64.
set -eu
here=$(dirname "$0")
python=${PYTHON:-python3} machine=${MACHINE:-x86_64}
rm -rf package function.zip
"$python" -m pip install --quiet --target package --only-binary=:all: --no-compile \
    --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" numpy "${2:-npylstm}"
rm -rf package/bin
cp "$here/handler.py" package/handler.py
cp "$1" package/model.npz
# Bytecode that is valid whatever the files' times are: the function cannot write its own.
"$python" -m compileall -q --invalidation-mode unchecked-hash package
(cd package && "$python" -m zipfile -c ../function.zip ./*)
du -sh package function.zip
