# shellcheck shell=sh
# What install.sh is told or finds, checked before anything is done; sourced by it. Plain sh and awk, since
# Python may not be installed yet.

NODE_NAME_RULE="small letters, digits, '-' and '.' only, and first and last a letter or digit"

# is_node_name TEXT: whether the agent takes it for a node's name.
is_node_name() {
    [ ${#1} -le 253 ] || return 1
    case $1 in ''|[!a-z0-9]*|*[!a-z0-9]|*[!a-z0-9.-]*) return 1 ;; esac
}

# is_network_name TEXT: whether runtimes and the plugin take it for a network's name.
is_network_name() {
    case $1 in ''|[!A-Za-z0-9]*|*[!A-Za-z0-9_.-]*) return 1 ;; esac
}

# fault_of CIDR LAST EXAMPLE: what is wrong with an IPv4 address and its prefix length, which may be
# 1 to LAST; nothing when all is well.
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
