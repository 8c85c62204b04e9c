#!/bin/sh
# Install pycni on a node: plugin, agent, configuration. Idempotent; each file is put in place by a
# rename, so that a runtime never meets half of one. --dry-run says what would be done.
set -eu
umask 022
ROOT=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
. "$ROOT/bin/lib.sh"

usage() {
    cat <<'USAGE'
usage: ./install.sh [options]

  --node-address A/P    this node's underlay address with its prefix, such as 10.10.7.20/20
                        (default: the address of the interface with the default route)
  --node-address6 A/P   its IPv6 address with the subnet's prefix, such as fd00:10::20/64; "auto" takes
                        that of the interface with the IPv6 default route (default: no IPv6)
  --node-name NAME      this node's name (default: the host's name in lower case)
  --pool CIDR           make a pool, unless one exists (IP-in-IP always, NAT out)
  --pool6 CIDR          make an IPv6 pool, unless one exists (no tunnel, NAT out), and give pods an
                        address of each version
  --network NAME        name of the CNI network (default: k8s-pod-network)
  --root DIR            install below DIR, for images and tests; starts nothing
  --no-start            don't enable or start the systemd service
  --uninstall           remove everything but the datastore in /var/lib/pycni
  --dry-run             only say what would be done
  -h, --help            this text

example: sudo ./install.sh --pool 192.168.0.0/16 --node-address 10.10.7.20/20
USAGE
}

# wrong SENTENCE: the call is wrong, and nothing has been done.
wrong() { note "error: $*"; exit 2; }

address='' address6='' name='' pool='' pool6='' network=k8s-pod-network prefix='' start=true dry=false uninstall=false
while [ $# -gt 0 ]; do
    case $1 in
        --node-address|--node-address6|--node-name|--pool|--pool6|--network|--root)
            [ $# -gt 1 ] || wrong "$1 needs a value: see install.sh --help" ;;
    esac
    case $1 in
        --node-address) address=$2; shift 2 ;;
        --node-address6) address6=$2; shift 2 ;;
        --node-name) name=$2; shift 2 ;;
        --pool) pool=$2; shift 2 ;;
        --pool6) pool6=$2; shift 2 ;;
        --network) network=$2; shift 2 ;;
        --root) prefix=$(readlink -f -- "$2"); start=false; shift 2 ;;
        --no-start) start=false; shift ;;
        --uninstall) uninstall=true; shift ;;
        --dry-run) dry=true; shift ;;
        -h|--help) usage; exit 0 ;;
        *) wrong "unknown option $1: see install.sh --help" ;;
    esac
done

# fault_of CIDR LAST EXAMPLE: what is wrong with an IPv4 address and its prefix length, which may be
# 1 to LAST; nothing when all is well. In awk, since Python may not be installed yet.
fault_of() {
    printf '%s\n' "$1" | awk -v last="$2" -v example="$3" '
        function number(text, least, most) {
            return text ~ /^(0|[1-9][0-9]*)$/ && text + 0 >= least && text + 0 <= most
        }
        NR > 1 { exit }
        {
            address = length_text = $0
            sub(/\/.*/, "", address)
            count = split(address, byte, ".")
            is_address = count == 4
            for (i = 1; i <= count; i++) if (!number(byte[i], 0, 255)) is_address = 0
            if (!is_address) print "not an IPv4 address: say it as in " example
            else if (!index($0, "/")) print "the prefix length is missing: say it as in " example
            else {
                sub(/^[^\/]*\//, "", length_text)
                if (!number(length_text, 1, last))
                    print "the prefix length must be 1 to " last ": say it as in " example
            }
        }'
}

# host_bits CIDR: whether any bit beyond the prefix length is set.
host_bits() {
    printf '%s\n' "$1" | awk -F '[./]' '{
        value = (($1 * 256 + $2) * 256 + $3) * 256 + $4
        exit value % 2 ^ (32 - $5) ? 0 : 1
    }'
}

# fault_of6 CIDR LAST EXAMPLE KIND: the same for IPv6; of a pool's CIDR no bit beyond the prefix
# length may be set, and an address must be one that other nodes can reach.
fault_of6() {
    printf '%s\n' "$1" | awk -v last="$2" -v example="$3" -v kind="$4" '
        function value(digits,   sum, i) {
            for (i = 1; i <= length(digits); i++)
                sum = sum * 16 + index("123456789abcdef", substr(digits, i, 1))
            return sum + 0
        }
        # How many groups a text has, -1 when it is none of IPv6; their values go to group[from…].
        function read(text, from,   count, i) {
            if (text == "") return 0
            count = split(text, word, ":")
            for (i = 1; i <= count; i++) {
                if (word[i] !~ /^[0-9a-f]+$/ || length(word[i]) > 4) return -1
                group[from + i - 1] = value(word[i])
            }
            return count
        }
        function is_address(text,   gap, left, right, i) {
            gap = index(text, "::")
            if (!gap) return read(text, 1) == 8
            left = read(substr(text, 1, gap - 1), 1)
            right = read(substr(text, gap + 2), 9)
            if (left < 0 || right < 0 || left + right > 7) return 0
            for (i = left + 1; i <= 8 - right; i++) group[i] = 0
            for (i = 1; i <= right; i++) group[8 - right + i] = group[8 + i]
            return 1
        }
        function has_host_bits(bits,   i, inside) {
            for (i = 1; i <= 8; i++) {
                inside = bits - 16 * (i - 1)
                if (inside < 0) inside = 0
                if (inside < 16 && group[i] % 2 ^ (16 - inside)) return 1
            }
            return 0
        }
        NR > 1 { exit }
        {
            address = length_text = tolower($0)
            sub(/\/.*/, "", address)
            sub(/^[^\/]*\/?/, "", length_text)
            if (!is_address(address)) print "not an IPv6 address: say it as in " example
            else if (!index($0, "/")) print "the prefix length is missing: say it as in " example
            else if (length_text !~ /^(0|[1-9][0-9]*)$/ || length_text < 1 || length_text + 0 > last)
                print "the prefix length must be 1 to " last ": say it as in " example
            else if (kind == "pool" && has_host_bits(length_text))
                print "bits beyond the prefix length are set"
            else if (group[1] >= 65152 && group[1] < 65216)
                print "link-local addresses serve neither nodes nor pods: say it as in " example
        }'
}

# Before anything is done: a wrong pool would otherwise be found out when all else is in place.
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

HOME_DIR=$prefix/opt/pycni
CNI_BIN=$prefix/opt/cni/bin
CNI_CONF=$prefix/etc/cni/net.d
CONFIG=$prefix/etc/pycni/agent.yaml
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
    cat >"$2.new.$$"
    chmod "$1" "$2.new.$$"
    mv -f "$2.new.$$" "$2"
    note "wrote $2"
}

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

remove() {
    if has_systemd && [ -e "$UNIT" ]; then
        act "stop pycni-agent" systemctl disable --now pycni-agent.service || :
    fi
    # The configuration first: from then on no runtime calls us.
    # pycni-ipam is a link: while it leads somewhere, -e sees it.
    for _f in "$CONFLIST" "$CNI_BIN/pycni-ipam" "$CNI_BIN/pycni" "$CNI_BIN/pycni-relay.py" \
        "$CNI_BIN"/__pycache__/pycni-relay.*.pyc "$CNI_BIN/pycni-engine" "$UNIT" "$CONFIG" \
        "$prefix/usr/local/bin/pycnictl"; do
        [ ! -e "$_f" ] || act "remove $_f" rm -f "$_f"
    done
    $dry || rmdir "$CNI_BIN/__pycache__" 2>/dev/null || :
    [ ! -d "$HOME_DIR" ] || act "remove $HOME_DIR" rm -rf "$HOME_DIR"
    $dry || note "removed; addresses are kept in $prefix/var/lib/pycni"
}

first_conflist() {
    for _f in "$CNI_CONF"/*.conflist "$CNI_CONF"/*.conf "$CNI_CONF"/*.json; do
        [ -e "$_f" ] && printf '%s\n' "${_f##*/}"
    done | sort | head -n 1
}

check() {
    $dry || [ -n "$prefix" ] || is_root || die "installing needs root: run  sudo $0"
    _first=$(first_conflist)
    case $_first in
        ''|10-pycni.conflist) ;;
        *) [ "$(printf '%s\n10-pycni.conflist\n' "$_first" | sort | head -n 1)" != "$_first" ] ||
            die "$CNI_CONF/$_first sorts before ours, so runtimes would go on using it: remove it first" ;;
    esac
    [ -n "$name" ] || name=$(hostname | tr '[:upper:]' '[:lower:]')
    [ -n "$address" ] || address=$(default_address)
    case $address in
        *.*.*.*/*) ;;
        *) die "this node's address is unknown: say --node-address, such as 10.10.7.20/20" ;;
    esac
    [ "$address6" = auto ] || return 0
    address6=$(default_address6)
    [ -n "$address6" ] ||
        die "this node's IPv6 address is unknown: say --node-address6, such as fd00:10::20/64"
    note "this node's IPv6 address is $address6"
}

default_address() {
    _dev=$(ip -4 route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
    [ -z "$_dev" ] || ip -4 -o addr show dev "$_dev" scope global | awk '{print $4; exit}'
}

# Neither an address that changes by and by nor one without a subnet serves to be found at.
default_address6() {
    _dev=$(ip -6 route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
    [ -z "$_dev" ] ||
        ip -6 -o addr show dev "$_dev" scope global -temporary -deprecated |
        awk '$4 !~ /\/128$/ {print $4; exit}'
}

install_program() {
    $dry && { note "would make $HOME_DIR"; return 0; }
    mkdir -p "$HOME_DIR"
    VENV=$HOME_DIR/venv
    ensure_venv runtime
    for _site in "$VENV"/lib/python3*/site-packages; do
        rm -f "$_site/pycni-clone.pth"
        rm -rf "$_site/pycni.new"
        cp -R "$ROOT/pycni" "$_site/pycni.new"
        rm -rf "$_site/pycni"
        mv "$_site/pycni.new" "$_site/pycni"
    done
    # The stamp speaks of a clone's environment; without it a repeated install checks everything.
    rm -f "$VENV/pycni-stamp" "$VENV.lock"
    note "installed the package into $VENV"
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
    _six=''
    [ -z "$address6" ] || _six="node_address6: \"$address6\"
"
    put 0600 "$CONFIG" <<EOF
node: "$name"
node_address: "$address"
${_six}bgp_user: pycni-bgp
EOF
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
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_CHOWN CAP_KILL CAP_DAC_OVERRIDE CAP_FOWNER

[Install]
WantedBy=multi-user.target
EOF
}

install_pool() {
    make_pool default-ipv4-ippool "$pool" Always '"cidr": "[0-9.]*/'
    make_pool default-ipv6-ippool "$pool6" Never '"cidr": "[0-9a-f:]*/'
}

# make_pool NAME CIDR IPIP-MODE PATTERN: make a pool, unless one exists whose JSON has the pattern.
make_pool() {
    [ -n "$2" ] || return 0
    $dry && { note "would make the pool $2"; return 0; }
    _db=$prefix/var/lib/pycni/pycni.db
    _ctl="$HOME_DIR/venv/bin/python -I -m pycni.ctl --datastore $_db"
    mkdir -p "$prefix/var/lib/pycni"
    chmod 0700 "$prefix/var/lib/pycni"
    if [ -e "$_db" ] && [ "$($_ctl get pools -o json | grep -c "$4")" -gt 0 ]; then
        note "a pool exists already, left as it is"
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

# Last: from the moment this file is there, runtimes call the plugin. cniVersion is for those that
# don't know 1.1.0 (podman 4, containerd 1) nor cniVersions, which came with it; the others choose.
install_network() {
    _ipam='"type": "pycni-ipam"'
    [ -z "$pool6" ] || _ipam="$_ipam, \"assign_ipv4\": \"true\", \"assign_ipv6\": \"true\""
    put 0600 "$CONFLIST" <<EOF
{
  "cniVersion": "1.0.0",
  "cniVersions": ["1.0.0", "1.1.0"],
  "name": "$network",
  "plugins": [
    {
      "type": "pycni",
      "nodename": "$name",
      "ipam": {$_ipam}
    }
  ]
}
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
install_program
install_plugin
install_configuration
install_pool
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

if $dry; then note "nothing was changed"; else note "$(advice)"; fi
