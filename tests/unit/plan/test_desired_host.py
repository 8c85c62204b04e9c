"""What is wanted of the host beside routes: tunnel, sysctls, host ends of pods, nftables."""

from dataclasses import replace

from pycni.model.network import Link
from pycni.model.resources import TunnelMode
from pycni.plan import desired
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.overlay import wanted_tunnels
from tests.unit.plan.samples import inputs, pool, with_pod


def tunnel(made: Inputs) -> tuple[str, int] | None:
    tunnels = wanted_tunnels(made)
    return next(((t.name, t.mtu) for t in tunnels.values()), None)


def test_the_tunnel_is_smaller_than_the_underlay_by_one_header() -> None:
    made = inputs()
    made.links["eth0"] = Link("eth0", 2, mtu=9000)

    assert tunnel(made) == ("tunl0", 8980)


def test_a_stated_mtu_counts() -> None:
    assert tunnel(inputs(settings=Settings("node-0", tunnel_mtu=1400, tunnel_name="ipip7"))) == (
        "ipip7",
        1400,
    )


def test_an_underlay_that_is_not_listed_counts_as_ethernet() -> None:
    made = inputs()
    made.links.clear()

    assert tunnel(made) == ("tunl0", 1480)


def test_without_ipip_pools_there_is_no_tunnel() -> None:
    assert tunnel(inputs(mode=TunnelMode.NEVER)) is None


def test_before_the_underlay_is_known_there_is_no_tunnel() -> None:
    made = inputs()
    made.addresses.clear()

    assert tunnel(made) is None


def test_a_tunnel_that_is_there_stays_while_the_underlay_address_is_away() -> None:
    made = inputs()
    made.addresses.clear()
    made.links["tunl0"] = Link("tunl0", 3, "ipip", mtu=1234)

    assert tunnel(made) == ("tunl0", 1234)


def test_the_tunnel_of_a_node_that_leaves_goes_with_its_address() -> None:
    leaving, gone, bare, full = inputs(), inputs(), inputs(), with_pod("192.168.39.193")
    for made in (leaving, gone, bare, full):
        made.is_leaving = True
    gone.set_node("node-0", None)
    gone.links["tunl0"] = Link("tunl0", 3, "ipip", mtu=1480)
    for made in (bare, full):
        own = made.node
        assert own is not None
        made.set_node("node-0", replace(own, ipip_tunnel_address=None))

    assert [tunnel(made) is None for made in (leaving, gone, bare, full)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_the_tunnel_carries_the_nodes_tunnel_address() -> None:
    assert {(a.ifname, str(a.interface)) for a in desired.wanted_addresses(inputs())} == {
        ("tunl0", "192.168.39.192/32")
    }


def test_no_tunnel_address_without_tunnel_or_node() -> None:
    unknown = inputs()
    unknown.set_node("node-0", None)

    assert desired.wanted_addresses(inputs(mode=TunnelMode.NEVER)) == set()
    assert desired.wanted_addresses(unknown) == set()


def test_forwarding_is_wanted_of_both_families_where_a_pool_has_them() -> None:
    made = inputs()
    wanted = desired.wanted_sysctls(made)
    del made.pools["pool6"]

    assert wanted["net.ipv4.ip_forward"] == wanted["net.ipv6.conf.all.forwarding"] == "1"
    assert "net.ipv6.conf.all.forwarding" not in desired.wanted_sysctls(made)


def test_the_tunnel_takes_replies_from_anywhere_and_pods_are_checked() -> None:
    wanted = desired.wanted_sysctls(with_pod("192.168.39.193"))

    assert wanted["net.ipv4.conf.tunl0.rp_filter"] == "0"
    assert wanted["net.ipv4.conf.cali1.rp_filter"] == "1"
    assert wanted["net.ipv4.conf.cali1.route_localnet"] == "0"
    assert "net.ipv6.conf.cali1.forwarding" not in wanted


def test_without_tunnel_its_sysctl_is_not_wanted() -> None:
    assert "net.ipv4.conf.tunl0.rp_filter" not in desired.wanted_sysctls(
        inputs(mode=TunnelMode.NEVER)
    )


def test_a_pod_with_ipv6_has_its_sysctls() -> None:
    wanted = desired.wanted_sysctls(with_pod("192.168.39.193", "fd00:1::1"))

    assert wanted["net.ipv6.conf.cali1.forwarding"] == "1"


def test_the_host_ends_of_ready_pods_are_wanted_up() -> None:
    assert desired.wanted_pod_links(with_pod("192.168.39.193")) == {"cali1": 1480}


def test_nftables_hides_pods_of_pools_that_ask_for_it() -> None:
    made = inputs()
    made.pools["pool4"] = pool(nat_outgoing=True)

    ruleset = desired.wanted_ruleset(made)

    assert ruleset is not None
    assert "elements = { 192.168.0.0/16 }" in ruleset.text
    assert "10.10.7.20, 10.10.7.30, 10.10.24.89, 10.10.43.25" in ruleset.text


def test_nftables_is_not_wanted_before_node_and_pools_are_known() -> None:
    unknown, empty = inputs(), inputs()
    unknown.set_node("node-0", None)
    empty.pools.clear()

    assert desired.wanted_ruleset(unknown) is None
    assert desired.wanted_ruleset(empty) is None
