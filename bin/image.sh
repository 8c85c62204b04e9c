# shellcheck shell=sh
# The container image for deploy/pycni.yaml, made of Debian packages without any registry; sourced by
# bin/ensure after lib.sh.

IMAGE_SUITE=bookworm
IMAGE_PACKAGES=base-files,libpython3-stdlib,netbase,nftables,python3-minimal,tini,util-linux
# Of all programs in these packages the agent runs four.
IMAGE_PROGRAMS='nft python3 python3.11 setpriv tini'
# ExaBGP's own user: beyond what distributions give to anybody.
IMAGE_BGP_ID=64179

# ensure_image: the image as an OCI archive, as `ctr images import` takes it; prints its path.
ensure_image() {
    is_root || { note "making the image needs root: run  sudo bin/ensure image"; return 1; }
    _relay=$(ensure_relay) || return 1
    _rootfs=$CACHE/image/rootfs-$(sum "$ROOT/bin/image.sh").tar
    _site=$CACHE/image/site-$(sum "$ROOT/requirements/cluster.lock")
    build "$_rootfs" make_rootfs || return 1
    build "$_site" make_site || return 1
    _content=$(
        cd "$ROOT" && find pycni deploy/Containerfile bin/image.sh requirements/cluster.lock \
            -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum "$_relay" | sha256sum
    )
    _version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$ROOT/pycni/__init__.py")
    _archive=$CACHE/image/$(printf %.16s "$_content")/pycni-$_version.tar
    build "$_archive" make_image || return 1
    # Each change of the sources makes another.
    find "$CACHE/image" -mindepth 2 -maxdepth 2 -name "pycni-*.tar" -mtime +7 ! -path "$_archive" \
        -exec rm -f {} +
    printf '%s\n' "$_archive"
}

# Unpacked and not configured: nothing that runs here needs a package's scripts.
make_rootfs() {
    apt_install mmdebstrap || return 1
    note "making a root file system of Debian $IMAGE_SUITE (once, 20 s)"
    # Its own work place, since a /tmp may be mounted without devices and programs.
    _said=$(TMPDIR=$CACHE/image mmdebstrap --quiet --variant=extract --mode=root --format=tar \
        --skip=output/dev --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="$IMAGE_PACKAGES" \
        --extract-hook=". '$ROOT/bin/lib.sh'; . '$ROOT/bin/image.sh'; prune_rootfs \"\$1\"" \
        "$IMAGE_SUITE" "$OUT" 2>&1) &&
        # apt's own directories, which mmdebstrap needs to the end.
        _said=$(tar --delete --file "$OUT" ./etc/apt ./var/cache/apt ./var/lib/apt 2>&1) && return 0
    note "mmdebstrap could not make a root file system: $_said"
    return 1
}

# prune_rootfs DIR: leave what the agent needs.
prune_rootfs() {
    for _dir in bin sbin; do
        for _f in "$1/usr/$_dir"/*; do
            case " $IMAGE_PROGRAMS " in *" ${_f##*/} "*) ;; *) rm -rf "$_f" ;; esac
        done
    done
    (
        cd "$1/usr" || exit 1
        for _f in share/*; do
            [ "$_f" = share/zoneinfo ] || rm -rf "$_f"
        done
        rm -rf games include libexec local src lib/*/gconv lib/*/perl-base lib/systemd lib/udev \
            lib/python3 lib/python3.11/pydoc_data lib/python3.11/lib2to3 lib/dpkg lib/init lib/tmpfiles.d
    )
    rm -rf "$1/etc/hostname" "$1/etc/resolv.conf" # this machine's
    rm -rf "$1/etc/init.d" "$1/etc/cron.daily" "$1/etc/default"
    mkdir -p "$1/proc" "$1/sys" "$1/dev" "$1/run" "$1/tmp" "$1/host" "$1/var"
    rm -rf "$1/var/local" "$1/var/mail" "$1/home" "$1/srv" "$1/mnt" "$1/media" "$1/boot"
    chmod 1777 "$1/tmp"
    ln -sfn /run "$1/var/run"
}

# The locked packages for the image's own Python, whichever this machine has.
make_site() {
    ensure_venv runtime
    note "fetching the image's Python packages (once)"
    _machine=$(uname -m)
    "$VENV/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
        --root-user-action=ignore --require-hashes --only-binary=:all: --no-compile \
        --implementation cp --python-version 3.11 \
        --platform "manylinux_2_17_$_machine" --platform "manylinux2014_$_machine" \
        --platform "manylinux_2_28_$_machine" --platform "manylinux_2_34_$_machine" \
        --target "$OUT" -r "$ROOT/requirements/cluster.lock" >&2 || return 1
    # Two thirds of all: a class for each kind of object, loaded when asked for. We ask for none.
    for _half in kubernetes/client kubernetes/aio/client; do
        for _part in api models; do
            find "$OUT/$_half/$_part" -name '*.py' ! -name __init__.py -exec rm -f {} +
        done
    done
    rm -rf "$OUT/bin"
}

make_image() {
    apt_install buildah || return 1
    note "making the image (10 s)"
    _work=$OUT.work _name=localhost/pycni:$_version
    rm -rf "$_work"
    mkdir -p "$_work/context/cni" "$_work/context/bin" || return 1
    if fill_context "$_work/context" && run_buildah bud --quiet --isolation chroot --layers=false \
        --format oci --pull=never --timestamp 0 -t "$_name" \
        -f "$ROOT/deploy/Containerfile" "$_work/context" >/dev/null
    then
        run_buildah push --quiet "$_name" "oci-archive:$OUT:$_name" >/dev/null
    else
        false
    fi
    _status=$?
    rm -rf "$_work"
    return $_status
}

# vfs: plain directories, which leave no mounts behind and need nothing of the kernel.
run_buildah() { buildah --root "$_work/root" --runroot "$_work/run" --storage-driver vfs "$@"; }

fill_context() {
    cp "$_rootfs" "$1/rootfs.tar" && cp -R "$_site" "$1/site-packages" &&
        (cd "$ROOT" && find pycni -type f ! -name '*.pyc' -exec cp --parents {} "$1/site-packages" \;) &&
        cp "$_relay" "$1/cni/pycni" || return 1
    printf '%s\n' 'root:x:0:0:root:/root:/usr/sbin/nologin' \
        "pycni-bgp:x:$IMAGE_BGP_ID:$IMAGE_BGP_ID::/nonexistent:/usr/sbin/nologin" >"$1/passwd"
    printf '%s\n' 'root:x:0:' "pycni-bgp:x:$IMAGE_BGP_ID:" >"$1/group"
    script pycni.agent.command >"$1/bin/pycni-agent"
    script pycni.agent.hostfiles >"$1/bin/pycni-install"
    script pycni.ctl.main >"$1/bin/pycnictl"
    chmod -R go=u,go-w "$1"
    chmod 0755 "$1/bin"/* "$1/cni/pycni"
}

# script MODULE: a command of the image.
script() {
    cat <<EOF
#!/opt/pycni/venv/bin/python -I
import sys

from $1 import main

sys.exit(main())
EOF
}
