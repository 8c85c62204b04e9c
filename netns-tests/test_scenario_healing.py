"""Whatever somebody breaks on a node is mended at once; what is foreign is left alone."""

from collections.abc import Iterator

import pytest

from cluster import DNSUTILS, Cluster, eventually, lab, wait_for_answer

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(180)]

# It takes a fraction of a second.  The pass over everything, each minute, would be too late.
MENDED_S = 30
TABLE = [
    "default via 10.10.0.1 dev eth0",
    "10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20",
    "blackhole 192.168.39.192/26 proto bird",
    "192.168.39.193 dev cali12b0eb5c038 scope link",
    "192.168.39.194 dev calibe752d56965 scope link",
    "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
    "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("heal") as running:
        yield running


@pytest.mark.parametrize(
    "breakage",
    [
        "ip route flush proto bird",
        "ip route del 192.168.247.0/26",
        "ip route del 192.168.39.193",
        "ip route flush dev cali12b0eb5c038",
        "ip link set tunl0 down",
        "ip link set tunl0 down; ip link set tunl0 up",
        "ip addr del 192.168.39.192/32 dev tunl0",
        "ip addr add 192.168.39.200/32 dev tunl0; ip addr del 192.168.39.192/32 dev tunl0",
        "ip link set tunl0 mtu 1400",
        "ip link set cali12b0eb5c038 down",
    ],
)
def test_broken_links_addresses_and_routes_are_mended(cluster: Cluster, breakage: str) -> None:
    cluster.run("node-0", breakage)

    eventually(
        lambda: cluster.routes("node-0") == TABLE and is_tunnel_right(tunnel(cluster)),
        within_s=MENDED_S,
        what=lambda: "\n".join([*cluster.routes("node-0"), tunnel(cluster)]),
    )
    wait_for_answer(cluster, DNSUTILS, "192.168.247.10", within_s=MENDED_S)


def tunnel(cluster: Cluster) -> str:
    return cluster.run("node-0", "ip -o -4 addr show tunl0; ip -o link show tunl0")


def is_tunnel_right(said: str) -> bool:
    return "192.168.39.192/32" in said and "192.168.39.200" not in said and "mtu 1480" in said


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("net.ipv4.ip_forward", "0", "1"),
        ("net.ipv4.conf.cali12b0eb5c038.proxy_arp", "0", "1"),
        ("net.ipv4.conf.cali12b0eb5c038.rp_filter", "0", "1"),
        ("net.ipv4.conf.cali12b0eb5c038.route_localnet", "1", "0"),
        ("net.ipv4.neigh.cali12b0eb5c038.proxy_delay", "80", "0"),
        ("net.ipv4.conf.tunl0.rp_filter", "1", "0"),
    ],
)
def test_changed_sysctl_is_set_back(cluster: Cluster, name: str, wrong: str, right: str) -> None:
    cluster.run("node-0", f"sysctl -qw {name}={wrong}")

    def now() -> str:
        return cluster.run("node-0", f"sysctl -n {name}").strip()

    eventually(lambda: now() == right, within_s=MENDED_S, what=now)


@pytest.mark.parametrize(
    "breakage", ["nft delete table inet pycni", "nft flush table inet pycni", "nft flush ruleset"]
)
def test_broken_nftables_table_is_written_again(cluster: Cluster, breakage: str) -> None:
    before = cluster.run("node-0", "nft -s list table inet pycni")

    cluster.run("node-0", breakage)

    eventually(
        lambda: cluster.run("node-0", "nft -s list table inet pycni", check=False) == before,
        within_s=MENDED_S,
    )


def test_foreign_routes_and_links_are_left_alone(cluster: Cluster) -> None:
    cluster.run("node-1", "ip link add theirs0 type veth peer name theirs1")
    cluster.run("node-1", "ip link set theirs0 up")
    cluster.run("node-1", "ip addr add 172.30.0.1/24 dev theirs0")
    foreign = [
        "172.30.0.0/24 dev theirs0 proto kernel scope link src 172.30.0.1",
        "172.31.0.0/16 via 10.10.16.1 dev eth0 proto static",
        "172.29.0.0/16 via 10.10.16.1 dev eth0 proto bird",
        "blackhole 172.28.0.0/16 proto bird",
    ]
    for line in foreign[1:]:
        cluster.run("node-1", f"ip route add {line}")

    cluster.lab("agent", "stop", "node-1")
    cluster.lab("agent", "start", "node-1")
    cluster.run("node-1", "ip route flush proto 12 exact 192.168.84.128/26")
    eventually(lambda: cluster.status("node-1")["converged"], within_s=60)

    linkdown = [line.replace(" linkdown", "") for line in cluster.routes("node-1")]
    assert set(foreign) <= set(linkdown)


def test_strangers_route_under_our_key_is_reported_and_kept(cluster: Cluster) -> None:
    stranger = "192.168.247.0/26 via 10.10.16.1 dev eth0 proto static"
    cluster.lab("agent", "stop", "node-1")
    cluster.run("node-1", "ip route del 192.168.247.0/26")
    cluster.run("node-1", f"ip route add {stranger}")
    try:
        cluster.lab("agent", "start", "node-1")

        eventually(
            lambda: any("somebody else's" in p for p in cluster.status("node-1")["problems"]),
            within_s=60,
            what=lambda: cluster.status("node-1"),
        )
        assert stranger in cluster.routes("node-1")
    finally:
        cluster.run("node-1", f"ip route del {stranger}")

    eventually(
        lambda: (
            "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
            in cluster.routes("node-1")
        ),
        within_s=MENDED_S,
    )
