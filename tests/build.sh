#!/bin/sh
# The build tier: wheel, installation into an empty root, and a run from there.
# usage: tests/build.sh PYTHON
set -eu
python=$1
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT INT TERM

# A copy, so that the build leaves nothing in the clone and sees only what git knows.
mkdir "$out/source" "$out/root"
git ls-files -z | xargs -0 cp --parents -t "$out/source"
"$python" -I -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps \
    -w "$out" "$out/source"
wheel=$(ls "$out"/*.whl)
"$python" -I -m pip install -q --disable-pip-version-check --no-deps --root-user-action=ignore \
    --target "$out/root" "$wheel"
for data in py.typed lab/uml_init.sh lab/umlfp.c lab/ipip.bpf.c; do
    [ -s "$out/root/pycni/$data" ] || [ -e "$out/root/pycni/$data" ] ||
        { echo "$data is missing from the wheel"; exit 1; }
done
version=$(cd "$out" && PYTHONPATH=$out/root "$python" -c 'import pycni; print(pycni.__version__, pycni.__file__)')
case $version in
    *"$out/root/"*) ;;
    *) echo "not the installed package: $version"; exit 1 ;;
esac
echo "wheel ${wheel##*/}, version ${version%% *}"
