"""What each message teaches, and what it makes the next pass look at."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from pycni.agent.facts import WATCHED_KINDS, Dirty, Facts
from pycni.agent.messages import (
    Changed,
    Doubt,
    EndpointsListed,
    KernelTold,
    Listed,
    Message,
    SysctlsRead,
)
from pycni.ipam.block import assign, new_block
from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import KernelState, LinkGone
from pycni.model.resources import (
    AffinityState,
    BGPConfiguration,
    BGPPeer,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
)
from pycni.plan.inputs import Inputs, Settings, route_key

BLOCK = ip_network("192.168.39.192/26")
POOL = IPPool("pool", ip_network("192.168.0.0/16"))


def facts() -> Facts:
    return Facts(Inputs(Settings(node="node-0")))


def feed(known: Facts, *messages: Message) -> Dirty:
    dirty = Dirty()
    for message in messages:
        dirty.merge(known.feed(message, now=0.0))
    return dirty


def affinity(node: str, state: AffinityState = AffinityState.CONFIRMED) -> BlockAffinity:
    return BlockAffinity(node, BLOCK, state)


def endpoint(name: str, address: str = "192.168.39.193") -> WorkloadEndpoint:
    return WorkloadEndpoint(
        key=EndpointKey("net", name, "eth0"),
        node="node-0",
        netns="",
        host_veth=f"cali{name}",
        handle_id=f"net.{name}",
        state=EndpointState.READY,
        addresses=(AssignedAddress(ip_interface(address)),),
    )


def test_datastore_counts_as_heard_once_every_kind_was_listed() -> None:
    known = facts()

    for kind in WATCHED_KINDS:
        assert not known.has_datastore
        assert feed(known, Listed(kind, ())).is_all
    assert known.has_datastore
    assert not feed(known, Listed(IPPool, ()))


def test_objects_that_a_listing_lacks_are_gone() -> None:
    known = facts()
    feed(known, Listed(IPPool, (POOL,)), Listed(Node, (Node("a"), Node("b"))))

    dirty = feed(known, Listed(IPPool, ()), Listed(Node, (Node("b"),)))

    assert dirty.is_all
    assert known.inputs.pools == {}
    assert known.inputs.pool_history == {POOL.cidr}  # its leftovers are still ours
    assert set(known.inputs.nodes) == {"b"}


def test_change_that_changes_nothing_makes_nothing_dirty() -> None:
    known = facts()
    feed(known, Changed(IPPool, "pool", POOL))

    assert not feed(known, Changed(IPPool, "pool", POOL))
    assert not feed(known, Changed(Handle, "x", Handle("x")))


def test_peers_and_bgp_settings_come_and_go() -> None:
    known = facts()
    peer = BGPPeer("tor", ip_address("10.0.0.1"), 64600)
    settings = BGPConfiguration(as_number=65001)

    assert feed(known, Changed(BGPPeer, "tor", peer)).is_bgp
    feed(known, Changed(BGPConfiguration, "default", settings))
    assert known.inputs.peers == {"tor": peer}
    assert known.inputs.bgp == settings

    feed(known, Changed(BGPPeer, "tor", None), Changed(BGPConfiguration, "default", None))
    assert known.inputs.peers == {}
    assert known.inputs.bgp == BGPConfiguration()


def test_settings_of_another_name_are_not_the_clusters() -> None:
    known = facts()

    feed(known, Changed(BGPConfiguration, "node.a", BGPConfiguration("node.a", as_number=1)))

    assert known.inputs.bgp == BGPConfiguration()


def test_confirmed_claim_beats_a_pending_one() -> None:
    known = facts()

    feed(
        known,
        Changed(BlockAffinity, "a", affinity("a", AffinityState.PENDING)),
        Changed(BlockAffinity, "b", affinity("b")),
    )
    assert known.inputs.affinities[BLOCK].node == "b"

    feed(known, Changed(BlockAffinity, "b", None))
    assert known.inputs.affinities[BLOCK].node == "a"
    feed(known, Changed(BlockAffinity, "a", None))
    assert BLOCK not in known.inputs.affinities


def test_own_claims_are_listed_in_the_order_of_their_names() -> None:
    known = facts()
    other = replace(affinity("node-0"), cidr=ip_network("192.168.40.0/26"))
    feed(
        known,
        Changed(BlockAffinity, "2", other),
        Changed(BlockAffinity, "1", affinity("node-0")),
        Changed(BlockAffinity, "3", affinity("node-9")),
    )

    assert [a.cidr for a in known.claims_of("node-0")] == [BLOCK, other.cidr]


def test_borrowed_addresses_follow_their_block() -> None:
    known = facts()
    empty = new_block(BLOCK, affinity="node-1", sequence_number=1)
    lent = assign(
        empty, ip_address("192.168.39.200"), handle_id="h", attributes=(("node", "node-2"),)
    )
    own = assign(
        lent, ip_address("192.168.39.201"), handle_id="g", attributes=(("node", "node-1"),)
    )
    prefix = ip_network("192.168.39.200/32")

    dirty = feed(known, Changed(Block, "b", own))
    assert known.inputs.borrowed == {prefix: "node-2"}
    assert dirty.keys == {route_key(prefix)}
    assert dirty.is_bgp

    feed(known, Changed(Block, "b", empty))
    assert known.inputs.borrowed == {}
    feed(known, Changed(Block, "b", lent), Changed(Block, "b", None))
    assert known.inputs.borrowed == {}


def test_listed_records_replace_what_was_known() -> None:
    known = facts()
    one, two = endpoint("one"), endpoint("two", "192.168.39.194")
    assert feed(known, EndpointsListed([one])).is_all

    dirty = feed(known, EndpointsListed([two]))

    assert set(known.inputs.endpoints) == {two.key}
    assert dirty.keys == {
        route_key(ip_network("192.168.39.193/32")),
        route_key(ip_network("192.168.39.194/32")),
    }
    assert not feed(known, EndpointsListed([two]))


def test_before_the_first_snapshot_the_kernels_word_means_nothing() -> None:
    known = facts()

    assert not feed(known, KernelTold(LinkGone("eth0")), SysctlsRead({"net.ipv4.ip_forward": "0"}))


def test_sysctl_that_differs_is_looked_at() -> None:
    known = facts()
    known.snapshot(KernelState(sysctls={"net.ipv4.ip_forward": "1"}))

    assert not feed(known, SysctlsRead({"net.ipv4.ip_forward": "1"}))
    assert feed(known, SysctlsRead({"net.ipv4.ip_forward": "0"})).is_other


def test_doubt_means_everything_anew() -> None:
    dirty = feed(facts(), Doubt("asked for"))

    assert dirty.is_all
    assert dirty.is_doubtful
