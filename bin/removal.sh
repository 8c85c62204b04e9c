# shellcheck shell=sh
# Take pycni off a node; sourced by install.sh.

# Bounds, so that an uninstallation ends whatever the datastore or the kernel are up to.
LEAVE_S=30
LONGEST_S=60

# installed WORDS…: pycnictl as it was installed.
installed() { timeout "$LONGEST_S" "$HOME_DIR/venv/bin/python" -I -m pycni.ctl "$@" >&2; }

can_ask() { [ -z "$prefix" ] && [ -x "$HOME_DIR/venv/bin/python" ]; }

# While the agent runs: peers and datastore hear from it.
leave_network() {
    can_ask || return 0
    _run=$(configured run_dir)
    act "leave the network: withdraw this node's routes, give back its blocks" \
        installed node leave --timeout "$LEAVE_S" --run-dir "${_run:-/run/pycni}" && return 0
    note "this node has not left, and is removed all the same: peers drop its routes within two minutes," \
        "and what it has in the books of addresses is given back as docs/nodes.md says"
}

# Once it has ended: it would make all of it anew.
clean_kernel() {
    can_ask || return 0
    act "remove our routes, tunnel and nftables table" installed node clean --config "$CONFIG" ||
        note "some of that is left, until the next reboot or  pycnictl node clean"
}

# The directory may be a file system of its own, which stays, empty.
remove_program() {
    find "$HOME_DIR" -xdev -mindepth 1 -delete || die "cannot empty $HOME_DIR: remove it by hand"
    rmdir "$HOME_DIR" 2>/dev/null || note "left $HOME_DIR, empty: something is mounted there"
}

remove_files() {
    for _f; do
        [ ! -e "$_f" ] || act "remove $_f" rm -f "$_f"
    done
}

remove() {
    _was=$(configured datastore)
    leave_network
    if has_systemd && [ -e "$UNIT" ]; then
        act "stop pycni-agent" systemctl disable --now pycni-agent.service || :
    fi
    # The configuration first: from then on no runtime calls us.
    # pycni-ipam is a link: while it leads somewhere, -e sees it.
    remove_files "$CONFLIST" "$CONFLIST.old" "$CNI_BIN/pycni-ipam" "$CNI_BIN/pycni" \
        "$CNI_BIN/pycni-relay.py" "$CNI_BIN"/__pycache__/pycni-relay.*.pyc "$CNI_BIN/pycni-engine" "$UNIT"
    clean_kernel
    # Also what an installation that was killed has left half written, credentials among it.
    remove_files "$CONFIG" "$CONFIG".new.* "$KUBECONFIG_FILE" "$KUBECONFIG_FILE".new.* \
        "$CNI_CONF"/10-pycni.conflist.new.* "$CNI_BIN"/pycni*.new.* "$prefix/usr/local/bin/pycnictl"
    remove_hands_off
    $dry || rmdir "$CNI_BIN/__pycache__" "$(dirname "$CONFIG")" 2>/dev/null || :
    [ ! -d "$HOME_DIR" ] || act "remove $HOME_DIR" remove_program
    if $dry; then return 0; fi
    case $_was in
        kubernetes) note "removed; the cluster keeps pycni's definitions and rights (deploy/crds.yaml, rbac.yaml," \
            "admission.yaml, and load-balancer.yaml and bgp-passwords.yaml where those were applied): see docs/kubernetes.md" ;;
        *)
            # Without an agent's start or a pool there never was one.
            if [ -d "$prefix/var/lib/pycni" ]; then
                note "removed; the datastore is kept in $prefix/var/lib/pycni"
            else
                note "removed"
            fi
            ;;
    esac
}
