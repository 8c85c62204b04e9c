"""Peerings beside the mesh: who has them, and what routers and reflectors may pass on."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.model.resources import TunnelMode
from pycni.model.resources_bgp import BGPPeer, SecretKey
from pycni.plan.desired import wanted_ruleset
from pycni.plan.imports import Rejected, judge, judge_prefix
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.peering import peering_with, wanted_neighbours, wanted_secrets
from tests.unit.plan.samples import OWN, THEIRS, inputs, lines, path

ROUTER = "10.10.0.1"
NEAR = "192.168.9.0/26"  # node-3's, which is in our own subnet
CLUSTER = ip_address("10.0.0.9")


def labelled(made: Inputs, name: str, **labels: str) -> None:
    made.set_node(name, replace(made.nodes[name], labels=tuple(labels.items())))


def without_mesh(*peers: BGPPeer, **modes: Any) -> Inputs:  # noqa: ANN401 - as `inputs` takes them.
    made = inputs(**modes)
    made.bgp = replace(made.bgp, is_node_mesh_enabled=False)
    made.peers = {peer.name: peer for peer in peers}
    return made


def router(
    name: str = "router",
    address: str = ROUTER,
    number: int = 65001,
    **fields: Any,  # noqa: ANN401 - any field of a peer.
) -> BGPPeer:
    return BGPPeer(name, ip_address(address), number, **fields)


def called(made: Inputs) -> list[str]:
    return [f"{n.peer} as {n.peer_as}" for n in wanted_neighbours(made) if n.peer.version == 4]


# --- who is called ------------------------------------------------------------------------------


def test_a_selector_says_which_nodes_have_a_peer() -> None:
    made = without_mesh(
        router("mine", "10.10.0.1", node_selector="rack == 'a'"),
        router("theirs", "10.10.0.2", node_selector="rack == 'b'"),
    )
    labelled(made, "node-0", rack="a")

    assert called(made) == ["10.10.0.1 as 65001"]


def test_nodes_are_called_by_selector_with_their_own_as_numbers() -> None:
    made = without_mesh(BGPPeer("reflectors", peer_selector="has(reflects)"))
    labelled(made, "node-1", reflects="")
    made.set_node("node-1", replace(made.nodes["node-1"], as_number=65010))

    assert called(made) == ["10.10.24.89 as 65010"]


def test_a_node_that_is_called_calls_back() -> None:
    made = without_mesh(BGPPeer("reflectors", node="node-2", peer_selector="has(reflects)"))
    labelled(made, "node-0", reflects="")

    assert called(made) == ["10.10.43.25 as 64512"]


def test_no_node_calls_itself() -> None:
    made = without_mesh(BGPPeer("all", peer_selector="all()", node_selector="all()"))

    assert called(made) == ["10.10.7.30 as 64512", "10.10.24.89 as 64512", "10.10.43.25 as 64512"]


def test_reflectors_are_no_part_of_the_mesh() -> None:
    made, reflects = inputs(), inputs()
    for facts, name in ((made, "node-1"), (reflects, "node-0")):
        facts.set_node(name, replace(facts.nodes[name], reflector_cluster_id=CLUSTER))

    assert called(made) == ["10.10.7.30 as 64512", "10.10.43.25 as 64512"]
    assert called(reflects) == []


def test_a_peer_has_settings_of_its_own() -> None:
    made = without_mesh(router(local_as=65002, restart_time_s=30, password="x", hops=1))  # noqa: S106 - an example.

    (neighbour,) = wanted_neighbours(made)

    assert (neighbour.local_as, neighbour.restart_time_s, neighbour.least_ttl) == (65002, 30, 255)
    ruleset = wanted_ruleset(made)
    assert ruleset is not None
    assert "ip saddr 10.10.0.1 tcp dport 179 ip ttl < 255" in ruleset.text
    assert neighbour.password == "x"  # noqa: S105 - as above.


def test_the_mesh_has_settings_of_its_own_and_peers_beside_it_have_not() -> None:
    made = inputs()
    made.peers = {"router": router(), "node": router("node", "10.10.43.25", 64512, hops=2)}
    made.bgp = replace(made.bgp, mesh_password="secret", mesh_restart_time_s=300)  # noqa: S106 - an example.

    settings = {str(n.peer): (n.password, n.restart_time_s) for n in wanted_neighbours(made)}

    mesh = ("secret", 300)
    assert settings == {
        "10.10.0.1": (None, 120),
        "10.10.7.30": mesh,
        "10.10.24.89": mesh,
        "10.10.43.25": (None, 120),
        "fd10::24": mesh,
        "fd11::43": mesh,
    }


def test_graceful_restart_can_be_switched_off_for_one_peer() -> None:
    (neighbour,) = wanted_neighbours(without_mesh(router(restart_time_s=0)))

    assert neighbour.restart_time_s == 0


def test_the_more_particular_peering_counts() -> None:
    made = without_mesh(
        BGPPeer("a", peer_selector="all()"),
        router("b", "10.10.24.89", 65009),
        router("c", "10.10.24.89", 65010),
    )

    assert "10.10.24.89 as 65010" in called(made)
    asked = map(ip_address, ("10.10.24.89", "10.10.43.25", "9.9.9.9"))
    assert [peering_with(made, a) for a in asked] == [made.peers["c"], made.peers["a"], None]


def test_before_our_node_is_known_there_is_no_peering() -> None:
    made = without_mesh(router())
    made.set_node("node-0", None)

    assert peering_with(made, ip_address(ROUTER)) is None


# --- what is passed on --------------------------------------------------------------------------


def reason(made: Inputs, *words: Any, **fields: Any) -> str:  # noqa: ANN401 - as `path` takes them.
    verdict = judge(made, path(*words, **fields))
    assert isinstance(verdict, Rejected), verdict
    return verdict.reason


def routes(made: Inputs, nlri: str, *via: str, **fields: Any) -> list[str]:  # noqa: ANN401 - as above.
    made.paths[ip_network(nlri)] = tuple(path(nlri, hop, peer=ROUTER, **fields) for hop in via)
    return lines(judge_prefix(made, ip_network(nlri)).route)


def test_a_reflected_block_leads_to_its_node() -> None:
    made = without_mesh(router(number=64512))

    assert routes(made, THEIRS, "10.10.43.25") == [
        "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
    ]


def test_a_node_that_reflects_passes_on_too() -> None:
    made = inputs()
    made.set_node("node-1", replace(made.nodes["node-1"], reflector_cluster_id=CLUSTER))

    made.paths[ip_network(THEIRS)] = (path(THEIRS, "10.10.43.25", peer="10.10.24.89"),)

    assert lines(judge_prefix(made, ip_network(THEIRS)).route) == [
        "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"
    ]


def test_two_reflectors_make_one_route() -> None:
    made = without_mesh(router("a", number=64512), router("b", "10.10.0.2", 64512))
    made.paths[ip_network(THEIRS)] = (
        path(THEIRS, peer="10.10.0.1"), path(THEIRS, peer="10.10.0.2"),
    )  # fmt: skip

    verdict = judge_prefix(made, ip_network(THEIRS))

    assert lines(verdict.route) == ["192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink"]
    assert len(verdict.used) == 2


def test_a_router_may_be_the_next_hop_itself() -> None:
    made = without_mesh(router(), mode=TunnelMode.CROSS_SUBNET)

    assert routes(made, THEIRS, ROUTER, as_path=(65001, 65002)) == [
        "192.168.247.0/26 via 10.10.0.1 dev eth0 proto bird"
    ]


def test_two_routers_share_the_load() -> None:
    made = without_mesh(router("a"), router("b", "10.10.0.2"), mode=TunnelMode.NEVER)
    made.paths[ip_network(THEIRS)] = tuple(
        path(THEIRS, hop, peer=hop, as_path=(65001,)) for hop in ("10.10.0.1", "10.10.0.2")
    )

    assert lines(judge_prefix(made, ip_network(THEIRS)).route) == [
        "192.168.247.0/26 proto bird",
        "nexthop via 10.10.0.1 dev eth0 weight 1",
        "nexthop via 10.10.0.2 dev eth0 weight 1",
    ]


def test_a_pool_that_is_always_encapsulated_needs_a_node_behind() -> None:
    assert reason(without_mesh(router()), THEIRS, ROUTER, peer=ROUTER) == (
        "pool pool4 tunnels to nodes, and next hop 10.10.0.1 is none"
    )


@pytest.mark.parametrize(
    ("nlri", "via", "why"),
    [
        (OWN, ROUTER, f"{OWN} is a block of this node"),
        (THEIRS, "10.10.0.7", "next hop 10.10.0.7 is no node's address, and not the peer's own"),
        (THEIRS, "10.10.24.89", "the block belongs to node-2, not to node-1"),
        ("192.168.77.0/26", ROUTER, "no block affinity covers it (yet)"),
        ("0.0.0.0/0", ROUTER, "it lies in no pool"),
    ],
)
def test_a_router_captures_nothing(nlri: str, via: str, why: str) -> None:
    made = without_mesh(router(), mode=TunnelMode.NEVER)

    assert reason(made, nlri, via, peer=ROUTER) == why


def test_another_nodes_router_is_none_of_ours() -> None:
    made = without_mesh(router(node="node-1"))

    assert reason(made, THEIRS, "10.10.43.25", peer=ROUTER) == (
        "peer 10.10.0.1 is no node, and no BGPPeer of this node names it"
    )


# --- AS paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "is_used"), [(0, False), (1, False), (2, True)])
def test_a_path_through_our_own_as_is_a_loop(allowed: int, is_used: bool) -> None:
    made = without_mesh(router(local_as=65002, allowed_own_as=allowed), mode=TunnelMode.NEVER)
    loop = path(NEAR, "10.10.7.30", peer=ROUTER, as_path=(65001, 65002, 64512))

    verdict = judge(made, loop)

    if is_used:
        assert not isinstance(verdict, Rejected)
    else:
        assert isinstance(verdict, Rejected)
        assert verdict.reason == (
            "its AS path holds our own AS 2 times (RFC 4271, 9.1.2; numAllowedLocalASNumbers)"
        )


def test_a_loop_is_one_in_the_mesh_too() -> None:
    assert reason(inputs(), THEIRS, as_path=(64512,)).startswith("its AS path holds our own AS 1 t")


def test_an_external_path_is_better_than_an_internal_one() -> None:
    made = without_mesh(
        router("outside", "10.10.0.1", 65001), router("inside", "10.10.0.2", 64512),
        mode=TunnelMode.NEVER,
    )  # fmt: skip
    made.paths[ip_network(NEAR)] = tuple(
        path(NEAR, hop, peer=hop, as_path=(65009,)) for hop in ("10.10.0.1", "10.10.0.2")
    )

    verdict = judge_prefix(made, ip_network(NEAR))

    assert [str(used.peer) for used in verdict.used] == ["10.10.0.1"]
    assert [rejected.reason for rejected in verdict.rejected] == [
        "another path is better (RFC 4271, 9.1.2.2)"
    ]


def test_as_numbers_of_nodes_tell_external_peers() -> None:
    made = inputs(mode=TunnelMode.NEVER)
    made.set_node("node-0", replace(made.nodes["node-0"], as_number=65010))
    made.set_node("node-3", replace(made.nodes["node-3"], as_number=65011))

    assert routes_of_mesh(made, "10.10.7.30") == [
        "192.168.9.0/26 via 10.10.7.30 dev eth0 proto bird"
    ]


def routes_of_mesh(made: Inputs, via: str) -> list[str]:
    made.paths[ip_network(NEAR)] = (path(NEAR, via, as_path=(65011,)),)
    return lines(judge_prefix(made, ip_network(NEAR)).route)


def test_passwords_that_a_cluster_keeps_are_wanted_for_our_own_sessions_alone() -> None:
    tor, mesh = SecretKey("bgp-passwords", "tor"), SecretKey("bgp-passwords", "mesh")
    made = without_mesh(
        router("ours", "10.10.0.1", password=tor),
        router("others", "10.10.0.2", password=SecretKey("bgp-passwords", "x"), node="node-1"),
    )
    made.bgp = replace(made.bgp, mesh_password=mesh)

    assert wanted_secrets(made) == {tor}
    assert called(made) == []

    made.bgp = replace(made.bgp, is_node_mesh_enabled=True)
    made.secrets = {mesh: "two"}

    assert wanted_secrets(made) == {tor, mesh}
    assert {n.password for n in wanted_neighbours(made)} == {"two"}
    assert "10.10.0.1 as 65001" not in called(made)

    made.secrets[tor] = "one"

    assert {str(n.peer): n.password for n in wanted_neighbours(made)}["10.10.0.1"] == "one"


def test_passwords_in_objects_are_no_secrets_to_be_read() -> None:
    made = without_mesh(router(password="x"))  # noqa: S106 - an example.

    assert wanted_secrets(made) == frozenset()


def test_before_its_own_node_is_known_an_agent_wants_no_secret() -> None:
    made = Inputs(Settings("node-0"))
    made.peers = {"router": router(password=SecretKey("bgp-passwords", "tor"))}

    assert wanted_secrets(made) == frozenset()
