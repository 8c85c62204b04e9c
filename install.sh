#!/bin/sh
# Install pycni on a node: plugin, agent, configuration. Idempotent; each file is put in place by a
# rename, so that a runtime never meets half of one. --dry-run says what would be done.
set -eu
umask 022
ROOT=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
. "$ROOT/bin/lib.sh"
. "$ROOT/bin/values.sh"
. "$ROOT/bin/configuration.sh"
. "$ROOT/bin/cluster.sh"

usage() {
    cat <<'USAGE'
usage: ./install.sh [options]

  --datastore KIND      where addresses are booked: "sqlite", a file of this host (default), or
                        "kubernetes", the cluster's objects. Then a node's address is its InternalIP
                        by default, and a cluster's first pools are kubeadm's podSubnet
  --kubeconfig FILE     the agent's credentials, kept as /etc/pycni/kubeconfig (default: made with
                        /etc/kubernetes/admin.conf, where definitions and rights are applied, too)
  --node-address A/P    this node's underlay address with its prefix, such as 10.10.7.20/20
                        (default: found by the method that agent.yaml says, or the address of
                        the interface with the default route)
  --node-address6 A/P   its IPv6 address with the subnet's prefix, such as fd00:10::20/64; "auto" takes
                        that of the interface with the IPv6 default route (default: no IPv6)
  --node-name NAME      this node's name (default: the host's name in lower case)
  --pool CIDR           make a pool, unless one exists (IP-in-IP always, NAT out)
  --pool6 CIDR          make an IPv6 pool, unless one exists (no tunnel, NAT out), and give pods an
                        address of each version
  --network NAME        name of the CNI network (default: k8s-pod-network)
  --root DIR            install below DIR, for images and tests; starts nothing
  --no-start            don't enable or start the systemd service
  --uninstall           leave the network, and remove everything but the datastore in /var/lib/pycni
  --dry-run             only say what would be done
  -h, --help            this text

Run again, it brings the program up to date. Of agent.yaml and the network's configuration it then
changes what an option states, and keeps all else.

example: sudo ./install.sh --pool 192.168.0.0/16 --node-address 10.10.7.20/20
         sudo ./install.sh --datastore kubernetes
USAGE
}

# wrong SENTENCE: the call is wrong, and nothing has been done.
wrong() { note "error: $*"; exit 2; }

words=$*
address='' address6='' name='' pool='' pool6='' six='' network='' datastore='' kubeconfig=''
prefix='' start=true dry=false uninstall=false
while [ $# -gt 0 ]; do
    case $1 in
        --datastore|--kubeconfig|--node-address|--node-address6|--node-name|--pool|--pool6|--network|--root)
            { [ $# -gt 1 ] && [ -n "$2" ]; } || wrong "$1 needs a value: see install.sh --help" ;;
    esac
    case $1 in
        --datastore) datastore=$2; shift 2 ;;
        --kubeconfig) kubeconfig=$2; shift 2 ;;
        --node-address) address=$2; shift 2 ;;
        --node-address6) address6=$2; shift 2 ;;
        --node-name) name=$2; shift 2 ;;
        --pool) pool=$2; shift 2 ;;
        --pool6) pool6=$2; shift 2 ;;
        --network) network=$2; shift 2 ;;
        --root)
            prefix=$(readlink -f -- "$2") || wrong "--root $2: make the directory above it first"
            start=false; shift 2 ;;
        --no-start) start=false; shift ;;
        --uninstall) uninstall=true; shift ;;
        --dry-run) dry=true; shift ;;
        -h|--help) usage; exit 0 ;;
        *) wrong "unknown option $1: see install.sh --help" ;;
    esac
done

# Before anything is done: what is wrong would otherwise be found out when all else is in place.
case $datastore in
    ''|sqlite|kubernetes) ;;
    *) wrong "--datastore $datastore: it is sqlite or kubernetes" ;;
esac
[ "$datastore" != sqlite ] || [ -z "$kubeconfig" ] ||
    wrong "--kubeconfig is for --datastore kubernetes: leave one of them out"
[ -z "$kubeconfig" ] || check_kubeconfig "$kubeconfig"
if [ -n "$pool" ]; then
    # A block is a /26, so no pool is smaller.
    _fault=$(fault_of "$pool" 26 192.168.0.0/16)
    [ -z "$_fault" ] || wrong "--pool $pool: $_fault"
    ! host_bits "$pool" || wrong "--pool $pool: bits beyond the prefix length are set"
fi
if [ -n "$address" ]; then
    _fault=$(fault_of "$address" 32 10.10.7.20/20)
    [ -z "$_fault" ] || wrong "--node-address $address: $_fault"
fi
if [ -n "$pool6" ]; then
    # A block is a /122.
    _fault=$(fault_of6 "$pool6" 122 fd00:192:168::/112 pool)
    [ -z "$_fault" ] || wrong "--pool6 $pool6: $_fault"
fi
if [ -n "$address6" ] && [ "$address6" != auto ]; then
    _fault=$(fault_of6 "$address6" 128 fd00:10::20/64 address)
    [ -z "$_fault" ] || wrong "--node-address6 $address6: $_fault"
fi

[ -z "$network" ] || is_network_name "$network" ||
    wrong "--network $network: letters, digits, '_', '.' and '-' only, and first a letter or digit"
[ -z "$name" ] || is_node_name "$name" || wrong "--node-name $name: $NODE_NAME_RULE"

HOME_DIR=$prefix/opt/pycni
CNI_BIN=$prefix/opt/cni/bin
CNI_CONF=$prefix/etc/cni/net.d
CONFIG=$prefix/etc/pycni/agent.yaml
KUBECONFIG_FILE=$prefix/etc/pycni/kubeconfig
ADMIN=$prefix/etc/kubernetes/admin.conf
. "$ROOT/bin/managers.sh"
. "$ROOT/bin/removal.sh"
UNIT=$prefix/etc/systemd/system/pycni-agent.service
CONFLIST=$CNI_CONF/10-pycni.conflist

# act WORDS COMMAND…: say and do it; in a dry run only say it.
act() {
    if $dry; then note "would $1"; return 0; fi
    note "$1"; shift
    "$@"
}

# put MODE FILE: standard input becomes the file, by rename.
put() {
    if $dry; then cat >/dev/null; note "would write $2"; return 0; fi
    mkdir -p "$(dirname "$2")"
    ( umask 077; cat >"$2.new.$$" )
    chmod "$1" "$2.new.$$"
    mv -f "$2.new.$$" "$2"
    note "wrote $2"
}

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

first_conflist() {
    for _f in "$CNI_CONF"/*.conflist "$CNI_CONF"/*.conf "$CNI_CONF"/*.json; do
        [ -e "$_f" ] && printf '%s\n' "${_f##*/}"
    done | sort | head -n 1
}

check() {
    $dry || [ -n "$prefix" ] || is_root || die "installing needs root: run  sudo $0${words:+ $words}"
    _first=$(first_conflist)
    case $_first in
        ''|10-pycni.conflist) ;;
        # Until its pods are taken over that network goes on, and so no agent is started either.
        10-calico.conflist)
            ! $start || die "$CNI_CONF/$_first is Calico's: say --no-start, and see" \
                "docs/migration.md for how its pods are taken over; or remove it first"
            note "$CNI_CONF/$_first goes on, until  pycnictl migrate --from calico --yes" ;;
        *) [ "$(printf '%s\n10-pycni.conflist\n' "$_first" | sort | head -n 1)" != "$_first" ] ||
            die "$CNI_CONF/$_first sorts before ours, so runtimes would go on using it: remove it first" ;;
    esac
    for _f in "$CONFIG" "$CONFLIST"; do
        [ ! -e "$_f" ] || [ -r "$_f" ] || die "only root can read $_f: run  sudo $0${words:+ $words}"
    done
    check_datastore
    find_configured
    check_method ip_autodetection_method "$address" --node-address
    check_method ip6_autodetection_method "$address6" --node-address6
    [ -n "$name" ] || name=$(hostname | tr '[:upper:]' '[:lower:]')
    is_node_name "$name" ||
        die "this host's name, $name, can't be a node's: say --node-name; $NODE_NAME_RULE"
    if [ "$datastore" = sqlite ] && [ -z "$(configured ip_autodetection_method)" ]; then
        [ -n "$address" ] || address=$(default_address)
        case $address in
            *.*.*.*/*) ;;
            *) die "this node's address is unknown: say --node-address, such as 10.10.7.20/20" ;;
        esac
    fi
    [ "$address6" = auto ] || return 0
    address6=$(default_address6)
    [ -n "$address6" ] ||
        die "this node's IPv6 address is unknown: say --node-address6, such as fd00:10::20/64"
    note "this node's IPv6 address is $address6"
}

# Made aside: what runs goes on from the old one, which stays where pip fails.
make_program() {
    _venv=$HOME_DIR/venv VENV=$HOME_DIR/venv.new _kind=runtime
    [ "$datastore" = sqlite ] || _kind=cluster
    ! $dry || { note "would make $HOME_DIR, with what requirements/$_kind.lock names"; return 0; }
    rm -rf "$VENV"
    ensure_venv "$_kind"
    for _site in "$VENV"/lib/python3*/site-packages; do
        rm -f "$_site/pycni-clone.pth"
        cp -R "$ROOT/pycni" "$_site/pycni"
    done
}

place_program() {
    ! $dry || return 0
    # Scripts name where they lie; the stamp speaks of a clone's environment.
    grep -lIF venv.new "$VENV"/bin/* "$VENV/pyvenv.cfg" | xargs sed -i 's|venv\.new|venv|g'
    rm -rf "$VENV/pycni-stamp" "$VENV.lock" "$_venv.old"
    [ ! -e "$_venv" ] || mv "$_venv" "$_venv.old"
    mv "$VENV" "$_venv"
    rm -rf "$_venv.old"
    note "installed the package into $_venv"
}

install_plugin() {
    if $dry; then
        note "would compile the plugin's relay and write $CNI_BIN/pycni, or if that fails" \
            "write the one in Python, with $CNI_BIN/pycni-relay.py"
    elif _relay=$(ensure_relay 2>/dev/null) && [ -x "$_relay" ]; then
        put 0755 "$CNI_BIN/pycni" <"$_relay"
    else
        # First what the other needs.
        put 0644 "$CNI_BIN/pycni-relay.py" <"$ROOT/bin/pycni-relay.py"
        put 0755 "$CNI_BIN/pycni" <"$ROOT/bin/pycni"
    fi
    put 0755 "$CNI_BIN/pycni-engine" <<EOF
#!/bin/sh
exec "$HOME_DIR/venv/bin/python" -I -m pycni.cni "\$@"
EOF
    # The name under which other main plugins find us; what it does, the configuration says.
    if $dry; then note "would link $CNI_BIN/pycni-ipam to pycni"; else
        ln -sfn pycni "$CNI_BIN/pycni-ipam.new.$$"
        mv -fT "$CNI_BIN/pycni-ipam.new.$$" "$CNI_BIN/pycni-ipam"
        note "linked $CNI_BIN/pycni-ipam to pycni"
    fi
    put 0755 "$prefix/usr/local/bin/pycnictl" <<EOF
#!/bin/sh
exec "$HOME_DIR/venv/bin/python" -I -m pycni.ctl "\$@"
EOF
}

install_configuration() {
    if [ -z "$prefix" ] && ! $dry && ! getent passwd pycni-bgp >/dev/null; then
        act "make the user pycni-bgp" useradd --system --no-create-home \
            --shell /usr/sbin/nologin pycni-bgp
    fi
    install_agent_configuration
    put 0644 "$UNIT" <<EOF
[Unit]
Description=pycni: pod routes, BGP and CNI for this node
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart=$HOME_DIR/venv/bin/python -I -m pycni.agent
ExecReload=/bin/kill -HUP \$MAINPID
Restart=always
RestartSec=1
# Pods' routes and peers' sessions outlive the agent: nothing is cleaned up on stop.
KillMode=mixed
RuntimeDirectory=pycni
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_KILL CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_NICE

[Install]
WantedBy=multi-user.target
EOF
}

# In a cluster the agents make them: several nodes may be installed at once.
install_pool() {
    [ "$datastore" = sqlite ] || return 0
    make_pool default-ipv4-ippool "$pool" Always '"cidr": "[0-9.]*/'
    make_pool default-ipv6-ippool "$pool6" Never '"cidr": "[0-9a-f:]*/'
}

# make_pool NAME CIDR IPIP-MODE PATTERN: make a pool, unless one exists whose JSON has the pattern.
make_pool() {
    [ -n "$2" ] || return 0
    _db=$prefix/var/lib/pycni/pycni.db
    if $dry; then
        if [ -e "$_db" ]; then _unless=', unless there is one of its kind'; else _unless=''; fi
        note "would make the pool $2$_unless"; return 0
    fi
    _ctl="$HOME_DIR/venv/bin/python -I -m pycni.ctl --datastore $_db"
    mkdir -p "$prefix/var/lib/pycni"
    chmod 0700 "$prefix/var/lib/pycni"
    if [ -e "$_db" ] && [ "$($_ctl get pools -o json | grep -c "$4")" -gt 0 ]; then
        if $_ctl get pools -o json | grep -q -F "\"cidr\": \"$2\""; then
            note "the pool $2 is there already"
        else
            note "the pool $2 was not made, since there are others (pycnictl get pools):" \
                "add it by  pycnictl apply -f"
        fi
        return 0
    fi
    $_ctl apply -f - <<EOF
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: $1
spec:
  cidr: $2
  ipipMode: $3
  natOutgoing: true
EOF
}

start_service() {
    $start && has_systemd || return 0
    act "let systemd read the unit" systemctl daemon-reload
    act "enable and start pycni-agent" systemctl enable --now pycni-agent.service
    act "restart pycni-agent" systemctl restart pycni-agent.service
}

verify() {
    $dry && return 0
    _said=$(printf '{"cniVersion": "1.1.0"}' |
        CNI_COMMAND=VERSION "$CNI_BIN/pycni") || die "the plugin doesn't answer VERSION: $_said"
    case $_said in
        *supportedVersions*) note "the plugin answers: $_said" ;;
        *) die "the plugin answers VERSION with: $_said" ;;
    esac
}

if $uninstall; then
    $dry || [ -n "$prefix" ] || is_root || die "uninstalling needs root: run  sudo $0 --uninstall"
    remove
    ! $dry || note "nothing was changed"
    exit 0
fi
check
make_program
prepare_cluster
place_program
install_plugin
install_configuration
install_pool
install_hands_off
start_service
verify
install_network
# What comes next, in a sentence.
advice() {
    if [ -n "$prefix" ]; then
        echo "done; nothing was started, since this is below $prefix"
    elif ! has_systemd; then
        echo "done; start the agent as root:  $HOME_DIR/venv/bin/python -I -m pycni.agent"
    elif ! $start; then
        echo "done; start the agent:  systemctl enable --now pycni-agent.service"
    else
        echo "done; see  sudo pycnictl status"
    fi
}

if $dry; then note "nothing was changed"; exit 0; fi
if [ "$datastore" = kubernetes ] && [ -e "$ADMIN" ]; then
    note "for other nodes copy $KUBECONFIG_FILE, keep it secret, and run there " \
        "./install.sh --datastore kubernetes --kubeconfig FILE"
fi
note "$(advice)"
