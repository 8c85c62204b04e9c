"""What the lab says of a kernel without nftables: one word a node, one line for the whole lab."""

from pycni.lab.degraded import degraded_lines, nat_word

NONE = "unavailable: the kernel has no netfilter netlink"


def test_whole_lab_gets_one_line_with_cause_consequence_and_remedy() -> None:
    (line,) = degraded_lines({"node-0": NONE, "node-1": NONE}, where="uml")

    assert line == (
        "degraded: no NAT out, no anti-spoofing (the kernel has no netfilter netlink); pods reach"
        " each other, but nothing outside; --tunnel bpf has both, and so has a host kernel with"
        " ipip"
    )


def test_other_remedy_is_named_on_the_hosts_own_kernel() -> None:
    (line,) = degraded_lines({"node-0": NONE}, where="host")

    assert line.endswith("both need nftables in this machine's kernel, and the `nft` program")


def test_nodes_are_named_where_only_some_are_degraded() -> None:
    (line,) = degraded_lines({"node-0": NONE, "node-1": "in place"}, where="uml")

    assert line.startswith("degraded on node-0: ")


def test_lab_with_nat_gets_no_line() -> None:
    assert degraded_lines({"node-0": "in place", "node-1": "absent"}, where="host") == []


def test_nodes_own_line_has_one_word() -> None:
    assert [nat_word(nat) for nat in (NONE, "in place", "unknown")] == [
        "unavailable",
        "in place",
        "unknown",
    ]
