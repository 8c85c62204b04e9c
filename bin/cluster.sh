# shellcheck shell=sh
# What install.sh does where a Kubernetes cluster's objects are the datastore; sourced by it.

# Where the credentials come from: an option, else an administrator's on this host, who makes them,
# else an earlier installation. What an operator has put into the place himself is not made anew.
MADE_BY_US='name: pycni-agent'

credentials_source() {
    if [ -n "$kubeconfig" ]; then echo given
    elif [ -e "$ADMIN" ] && { [ ! -e "$KUBECONFIG_FILE" ] || grep -q "$MADE_BY_US" "$KUBECONFIG_FILE"; }; then
        echo admin
    elif [ -e "$KUBECONFIG_FILE" ]; then echo kept
    fi
}

# Which datastore it is to be; a change would leave what pods hold in the other's books.
check_datastore() {
    _was=sqlite
    [ "$(configured datastore)" != kubernetes ] || _was=kubernetes
    [ -n "$datastore" ] || datastore=$_was
    if [ "$datastore" = sqlite ]; then
        [ -z "$kubeconfig" ] || wrong "--kubeconfig is for --datastore kubernetes: say that, or leave it out"
    else
        [ -n "$(credentials_source)" ] || die "no way to the cluster: on a control-plane node run" \
            "kubeadm init first, elsewhere copy /etc/pycni/kubeconfig from one, and say --kubeconfig FILE"
    fi
    [ -e "$CONFIG" ] && [ "$_was" != "$datastore" ] || return 0
    _run=$(configured run_dir)
    for _record in "$prefix${_run:-/run/pycni}"/endpoints/*.json; do
        [ ! -e "$_record" ] || die "pods of this node hold addresses in the $_was datastore: remove" \
            "them first (kubectl drain), then run this again"
    done
}

check_kubeconfig() {
    [ -r "$1" ] || wrong "--kubeconfig $1: there is no such file, or you may not read it"
    grep -q '^ *"\{0,1\}clusters"\{0,1\}:' "$1" || wrong "--kubeconfig $1: this is no kubeconfig"
}

# Before anything of this host changes but what is made aside: definitions and rights, where we may,
# and credentials that are known to work.
prepare_cluster() {
    [ "$datastore" = kubernetes ] || return 0
    _source=$(credentials_source)
    if $dry; then describe_cluster; return 0; fi
    _ctl="$VENV/bin/python -I -m pycni.ctl --kubeconfig"
    _staged=$KUBECONFIG_FILE.new.$$
    mkdir -p "$(dirname "$KUBECONFIG_FILE")"
    rm -f "$KUBECONFIG_FILE".new.* # credentials that a run which was killed has left
    case $_source in
        given) ( umask 077; cat "$kubeconfig" >"$_staged" ) ;;
        admin)
            note "preparing the cluster with $ADMIN"
            $_ctl "$ADMIN" cluster apply -f "$ROOT/deploy/crds.yaml" -f "$ROOT/deploy/rbac.yaml" \
                -f "$ROOT/deploy/admission.yaml" >&2 &&
                ( umask 077; $_ctl "$ADMIN" cluster kubeconfig >"$_staged" ) ||
                give_up "the cluster can't be prepared with $ADMIN, see above: mend that and run this again" ;;
        kept) note "$KUBECONFIG_FILE stays as it is" ;;
    esac
    check_cluster
    place_kubeconfig
}

# Below another root a given kubeconfig is another host's: there is nobody to ask.
check_cluster() {
    if [ "$_source" = kept ]; then _asking=$KUBECONFIG_FILE; else _asking=$_staged; fi
    [ -z "$prefix" ] || [ "$_source" = admin ] || return 0
    if _said=$($_ctl "$_asking" get pools 2>&1 >/dev/null); then
        ! $_ctl "$_asking" cluster subnets 2>/dev/null | grep -q : || six=true
    elif [ "$_source" = kept ]; then
        note "warning: the cluster can't be asked with $KUBECONFIG_FILE: ${_said#error: }"
    else
        give_up "the cluster can't be used with this kubeconfig: ${_said#error: }"
    fi
}

# Nothing of the host's has changed yet; what was made aside goes.
give_up() {
    rm -rf "$_staged" "$VENV" "$VENV.lock"
    rmdir "$(dirname "$KUBECONFIG_FILE")" "$HOME_DIR" 2>/dev/null || :
    die "$@"
}

place_kubeconfig() {
    [ -e "$_staged" ] || return 0
    if cmp -s "$_staged" "$KUBECONFIG_FILE"; then
        rm -f "$_staged"
        chmod 0600 "$KUBECONFIG_FILE"
        note "$KUBECONFIG_FILE stays as it is"
    else
        mv -f "$_staged" "$KUBECONFIG_FILE"
        note "wrote $KUBECONFIG_FILE"
    fi
}

describe_cluster() {
    case $_source in
        given) note "would see that the cluster can be used with $kubeconfig, and copy it to $KUBECONFIG_FILE" ;;
        admin) note "would apply deploy/crds.yaml, rbac.yaml and admission.yaml with $ADMIN (definitions that" \
            "another made are kept), and write credentials of the service account pycni-agent to" \
            "$KUBECONFIG_FILE" ;;
        kept) note "$KUBECONFIG_FILE stays as it is" ;;
    esac
    for _pool in $pool $pool6; do
        note "would have agents make the pool $_pool, unless there is one of its kind"
    done
}
