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
# A host with both network managers.
mkdir -p "$out/root/etc/NetworkManager" "$out/root/usr/lib/systemd"
: >"$out/root/usr/lib/systemd/systemd-networkd"
chmod +x "$out/root/usr/lib/systemd/systemd-networkd"
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
grep -qxF 'unmanaged-devices+=interface-name:cali*;interface-name:tunl0;interface-name:vxlan*.calico' \
    "$out/root/etc/NetworkManager/conf.d/pycni.conf" || fail "NetworkManager would manage pods' interfaces"
grep -qxF 'Name=cali* tunl0 vxlan*.calico' "$out/root/etc/systemd/network/00-pycni.network" ||
    fail "networkd would manage pods' interfaces"
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
# Without an index nothing can be installed, and what was there goes on.
! PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS='' ./install.sh --root "$out/root" \
    --node-address 10.0.0.1/24 2>"$out/said" || fail "an installation without packages succeeded"
grep -q 'let it reach a package index' "$out/said" || fail "it ended with: $(tail -n 1 "$out/said")"
"$out/root/usr/local/bin/pycnictl" --version >/dev/null || fail "a failed installation took the old one"
# Again, over what an operator has changed: what no option states stays.
config=$out/root/etc/pycni/agent.yaml conflist=$out/root/etc/cni/net.d/10-pycni.conflist
echo 'hold_time_s: 30' >>"$config"
cp "$conflist" "$out/conflist"
./install.sh --root "$out/root" --node-address 10.0.0.2/24 --pool 10.0.0.0/8 2>"$out/said" ||
    fail "the second installation failed: $(cat "$out/said")"
for line in 'node: "build"' 'node_address: "10.0.0.2/24"' 'node_address6: "fd00:10::1/64"' \
    'bgp_user: pycni-bgp' 'hold_time_s: 30'; do
    grep -qxF "$line" "$config" || fail "the second installation lost or missed: $line"
done
cmp "$conflist" "$out/conflist" || fail "the second installation changed the network"
grep -q 'the pool 10.0.0.0/8 was not made' "$out/said" ||
    fail "the second installation didn't say what became of its pool: $(cat "$out/said")"
./install.sh --root "$out/root" --node-name other 2>"$out/said"
grep -q '"nodename": "other"' "$conflist" && grep -q '"assign_ipv6": "true"' "$conflist" ||
    fail "the third installation wrote: $(cat "$conflist")"
cmp "$conflist.old" "$out/conflist" || fail "what the third installation replaced is lost"
[ "$(ls "$out/root/opt/pycni")" = venv ] || fail "left beside venv: $(ls "$out/root/opt/pycni")"
! grep -rIlF "venv.new" "$out/root/opt/pycni/venv/bin" || fail "these name the place where they were made"
./install.sh --root "$out/root" --uninstall
left=$(find "$out/root" \( -type f -o -type l \) -not -path '*/var/lib/pycni/*' -not -name systemd-networkd)
[ -z "$left" ] || fail "left after --uninstall: $left"
echo "$(cd "$out" && ls ./*.whl), installed, run and removed: $command"
