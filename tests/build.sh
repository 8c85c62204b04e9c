#!/bin/sh
# The build tier: a wheel with everything in it, an installation into an empty root, a run from
# there, and its removal.
# usage: tests/build.sh PYTHON
set -eu
python=$1
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT INT TERM
fail() { echo "$*"; exit 1; }

# A copy, so that the build leaves nothing in the clone and sees only what git knows.
mkdir "$out/source" "$out/site" "$out/root"
git -c "safe.directory=$PWD" ls-files -z | xargs -0 cp --parents -t "$out/source"
cd "$out/source"

"$python" -I -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w "$out" .
"$python" -I -m pip install -q --disable-pip-version-check --no-deps --root-user-action=ignore \
    --target "$out/site" "$out"/*.whl
# What is not Python is what a wheel forgets.
git -C "$OLDPWD" -c "safe.directory=$OLDPWD" ls-files pycni | while read -r file; do
    [ -e "$out/site/$file" ] || fail "$file is missing from the wheel"
done
version=$(cd / && PYTHONPATH=$out/site "$python" -c 'import pycni; print(pycni.__version__, pycni.__file__)')
case $version in
    *" $out/site/"*) ;;
    *) fail "not the installed package: $version" ;;
esac

unset PYCNI_VENV
./install.sh --root "$out/root" --node-name build --node-address 10.0.0.1/24 \
    --node-address6 fd00:10::1/64 --pool 192.168.0.0/16 --pool6 fd00:192:168::/112 \
    2>"$out/said" || fail "install.sh failed: $(cat "$out/said")"
cat "$out/said" >&2
case $(tail -n 1 "$out/said") in
    *"nothing was started, since this is below $out/root") ;;
    *) fail "the installation ended with: $(tail -n 1 "$out/said")" ;;
esac
grep -qxF 'node_address6: "fd00:10::1/64"' "$out/root/etc/pycni/agent.yaml" ||
    fail "the installed configuration lacks the IPv6 address"
grep -qF '"assign_ipv6": "true"' "$out/root/etc/cni/net.d/10-pycni.conflist" ||
    fail "the installed network gives pods no IPv6"
for plugin in pycni pycni-ipam; do
    said=$(echo '{"cniVersion": "1.0.0"}' | CNI_COMMAND=VERSION "$out/root/opt/cni/bin/$plugin")
    case $said in
        *'"supportedVersions"'*'"1.1.0"'*) ;;
        *) fail "the installed $plugin answered: $said" ;;
    esac
done
command=$("$out/root/usr/local/bin/pycnictl" --version)
[ "$command" = "pycni ${version%% *}" ] || fail "the installed pycnictl answered: $command"
./install.sh --root "$out/root" --uninstall
left=$(find "$out/root" \( -type f -o -type l \) -not -path '*/var/lib/pycni/*')
[ -z "$left" ] || fail "left after --uninstall: $left"
echo "$(cd "$out" && ls ./*.whl), installed, run and removed: $command"
