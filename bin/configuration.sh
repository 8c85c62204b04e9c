# shellcheck shell=sh
# What install.sh writes for agent and plugin, and what it keeps; sourced by it.

# What an earlier installation was told holds until an option says otherwise: under another name the
# node would lose its blocks, at another address its peers.
find_configured() {
    [ -n "$name" ] || name=$(configured node)
    [ -n "$address" ] || address=$(configured node_address)
    [ -n "$address6" ] || address6=$(configured node_address6)
}

# check_method KEY ADDRESS OPTION: refuse an address beside a method that finds one, as the agent does.
check_method() {
    [ -z "$2" ] || [ -z "$(configured "$1")" ] ||
        die "$CONFIG says $1: remove that to state an address, or leave out $3"
}

# configured KEY: its value in agent.yaml; nothing where there is none.
configured() {
    [ ! -e "$CONFIG" ] ||
        sed -n "s/^$1: *[\"']\{0,1\}\([^\"' #]*\).*/\1/p" "$CONFIG" | tail -n 1
}

# Settings that an operator wrote stay where they are.
install_agent_configuration() {
    _new=$(
        if [ -e "$CONFIG" ]; then cat "$CONFIG"; else echo 'bgp_user: pycni-bgp'; fi |
            of_the_datastore | stating node_address6 "$address6" |
            stating node_address "$address" | stating node "$name"
    )
    if [ -e "$CONFIG" ] && [ "$_new" = "$(cat "$CONFIG")" ]; then
        note "$CONFIG stays as it is"
    else
        printf '%s\n' "$_new" | put 0600 "$CONFIG"
    fi
}

# YAML from standard input to standard output, with what the chosen datastore is told, and nothing
# of the other.
of_the_datastore() {
    if [ "$datastore" = kubernetes ]; then
        stating pool6 "$pool6" | stating pool "$pool" |
            stating kubeconfig "$KUBECONFIG_FILE" | stating datastore kubernetes
    elif [ "$(configured datastore)" = kubernetes ]; then
        sed '/^datastore:/d; /^kubeconfig:/d; /^pool6\{0,1\}:/d'
    else
        cat
    fi
}

# stating KEY VALUE: YAML from standard input to standard output, with this value; as it came where
# the value is "" or the same.
stating() {
    [ -n "$2" ] && [ "$(configured "$1")" != "$2" ] || { cat; return 0; }
    printf '%s: "%s"\n' "$1" "$2"
    sed "/^$1:/d"
}

# Whether the network's configuration says already what the options say; then it is an operator's,
# who may have added to it.
states_all_of_it() {
    conflist_says "\"nodename\": *\"$name\"" && states_datastore &&
        { [ -z "$network" ] || conflist_says "\"name\": *\"$network\""; } &&
        { [ -z "$pool6$six" ] || conflist_says '"assign_ipv6": *"true"'; }
}

states_datastore() {
    if conflist_says '"datastore_type": *"kubernetes"'; then [ "$datastore" = kubernetes ]
    else [ "$datastore" = sqlite ]; fi
}

conflist_says() { grep -q -e "$1" "$CONFLIST"; }

# Last: from the moment this file is there, runtimes call the plugin. cniVersion is for those that
# don't know 1.1.0 (podman 4, containerd 1) nor cniVersions, which came with it; the others choose.
install_network() {
    _six=$pool6$six _datastore=''
    [ "$datastore" = sqlite ] || _datastore='
      "datastore_type": "kubernetes",'
    if [ -e "$CONFLIST" ]; then
        if states_all_of_it; then note "$CONFLIST stays as it is"; return 0; fi
        act "keep what was there as $CONFLIST.old" cp -p "$CONFLIST" "$CONFLIST.old"
        [ -n "$network" ] ||
            network=$(sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' "$CONFLIST" | head -n 1)
        ! conflist_says '"assign_ipv6": *"true"' || _six=true
    fi
    _ipam='"type": "pycni-ipam"'
    [ -z "$_six" ] || _ipam="$_ipam, \"assign_ipv4\": \"true\", \"assign_ipv6\": \"true\""
    put 0600 "$CONFLIST" <<EOF
{
  "cniVersion": "1.0.0",
  "cniVersions": ["1.0.0", "1.1.0"],
  "name": "${network:-k8s-pod-network}",
  "plugins": [
    {
      "type": "pycni",
      "nodename": "$name",$_datastore
      "ipam": {$_ipam}
    }
  ]
}
EOF
}
