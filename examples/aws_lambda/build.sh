#!/bin/sh
# Makes function.zip out of a model: build.sh MODEL.npz [WHEEL]. Python's version and the processor
# are those of the function; for Graviton processors PLATFORM=manylinux2014_aarch64.
set -eu
here=$(dirname "$0")
rm -rf package function.zip
for tag in "${PLATFORM:=manylinux2014_x86_64}" "manylinux_2_28_${PLATFORM#manylinux2014_}"; do
    set -- "$@" "--platform=$tag"
done
model=$1 wheel=npylstm
case ${2:-} in *.whl) wheel=$2; shift ;; esac
shift
python3 -m pip install --quiet --target package --only-binary=:all: --no-compile "$@" \
    --python-version "${PYTHON_VERSION:-3.13}" numpy "$wheel"
rm -rf package/bin
cp "$here/handler.py" package/handler.py
cp "$model" package/model.npz
(cd package && python3 -m zipfile -c ../function.zip ./*)
du -sh package function.zip
