# shellcheck shell=sh
# Keep the host's own network managers away from what is pycni's; sourced by install.sh.
#
# A host may have them set up whatever interface there is: they would give pods' ends and the tunnel
# addresses, or ask for leases there. The agent mends what it can, but pods would notice.

HANDS_OFF_NM=$prefix/etc/NetworkManager/conf.d/pycni.conf
# The first by name whose pattern fits an interface has it.
HANDS_OFF_LINKS=$prefix/etc/systemd/network/00-pycni.network

has_network_manager() { [ -d "$prefix/etc/NetworkManager" ]; }

has_networkd() {
    [ -x "$prefix/usr/lib/systemd/systemd-networkd" ] || [ -x "$prefix/lib/systemd/systemd-networkd" ]
}

install_hands_off() {
    if has_network_manager; then
        put_unless_so "$HANDS_OFF_NM" <<'EOF'
# Pods' interfaces and the tunnel are pycni's; added to what other files leave alone.
[keyfile]
unmanaged-devices+=interface-name:cali*;interface-name:tunl0;interface-name:vxlan*.calico
EOF
    fi
    has_networkd || return 0
    put_unless_so "$HANDS_OFF_LINKS" <<'EOF'
# Pods' interfaces and the tunnel are pycni's.
[Match]
Name=cali* tunl0 vxlan*.calico

[Link]
Unmanaged=yes
EOF
}

# put_unless_so FILE: standard input becomes the file, and whoever reads it hears of it.
put_unless_so() {
    _text=$(cat)
    if [ -e "$1" ] && [ "$_text" = "$(cat "$1")" ]; then
        note "$1 stays as it is"
    else
        printf '%s\n' "$_text" | put 0644 "$1"
        tell_reader_of "$1"
    fi
}

tell_reader_of() {
    has_systemd && ! $dry || return 0
    case $1 in
        "$HANDS_OFF_NM") ! systemctl -q is-active NetworkManager || systemctl reload NetworkManager || : ;;
        "$HANDS_OFF_LINKS") ! systemctl -q is-active systemd-networkd || networkctl reload || : ;;
    esac
}

remove_hands_off() {
    for _file in "$HANDS_OFF_NM" "$HANDS_OFF_LINKS"; do
        [ -e "$_file" ] || continue
        act "remove $_file" rm -f "$_file"
        tell_reader_of "$_file"
    done
}
