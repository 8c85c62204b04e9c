"""What a migration of one node does, from what was found there; and the way back."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from pycni.migrate.cluster import Verdict
from pycni.migrate.plan import Agent, Found, plan_migration, plan_return
from pycni.migrate.record import Migration, Moved
from pycni.migrate.steps import (
    HandOver,
    LetGo,
    Plan,
    RemoveTable,
    Rename,
    TakeOver,
    moved,
    plan_text,
    protocols,
)
from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import NextHop, Route, RouteKey
from pycni.plan.ownership import alias_of
from tests.unit.migrate.found import (
    CIDR,
    DB,
    FOUND,
    NETWORK,
    WEB,
    address,
    attribute,
    blackhole,
    block,
    changed,
    end,
    kernel,
    learned,
    of_pod,
    pod_route,
    veth,
)

WEB_RECORD = WorkloadEndpoint(
    key=EndpointKey(NETWORK, "web", "eth0"),
    node="node-0",
    netns="/run/netns/web",
    host_veth=WEB,
    handle_id=f"{NETWORK}.web",
    state=EndpointState.READY,
    addresses=(AssignedAddress(ip_interface("192.168.39.193"), 7),),
    mtu=1480,
    host_mac="ee:ee:ee:ee:ee:ee",
    pod_mac="02:00:00:00:00:01",
    pod_namespace="default",
    pod_name="web",
)
MIGRATION = Migration("node-0", moved=(Moved("10-calico.conflist", "10-calico.conflist.aside"),))


def plan(found: Found = FOUND) -> Plan:
    return plan_migration(found, Verdict())


def taken(found: Found) -> list[str]:
    return [one.endpoint.pod_name for one in plan(found).steps if isinstance(one, TakeOver)]


def test_a_plan_reads_as_an_operator_needs_it() -> None:
    found = changed(
        kernel=kernel(
            (learned(protocol=80), blackhole(), blackhole(protocol=80), pod_route(193, WEB)),
            veth(WEB),
        ),
        blocks=(block(of_pod("web"), of_pod("gone")),),
        processes=("bird (pid 8)", "calico-node (pid 7)"),
        firewall={"iptables-nft-restore": "*filter\n-X cali-FORWARD\n-X cali-INPUT\nCOMMIT\n"},
        tables=("ip calico",),
        agent=Agent(is_running=False, complaint="pycni's agent doesn't run here: start it"),
    )
    verdict = Verdict(
        refused=["IPPool one uses VXLAN"],
        attention=["1 NetworkPolicy object WILL NOT BE ENFORCED"],
        kept=["IPPool two: 192.168.0.0/16"],
        unavailable={"node-0", "node-1"},
    )

    assert plan_text(plan_migration(found, verdict)).splitlines() == [
        "node-0: migration from Calico to pycni",
        "",
        "goes on as it is:",
        "  IPPool two: 192.168.0.0/16",
        "",
        "ATTENTION:",
        "  1 NetworkPolicy object WILL NOT BE ENFORCED",
        "",
        "refused:",
        "  IPPool one uses VXLAN",
        "",
        "first:",
        (
            "  bird (pid 8), calico-node (pid 7) of Calico's runs here, and two networks would"
            " write the"
            " same routes: keep calico-node off this node (docs/migration.md)"
        ),
        "  pycni's agent doesn't run here: start it (it has to serve before pods are pycni's)",
        "",
        "left alone:",
        (
            "  192.168.39.194 (handle k8s-pod-network.gone): pod default/gone has no interface"
            " calia68237850af here"
        ),
        "",
        "steps:",
        "  1. rename 10-calico.conflist to 10-calico.conflist.before-pycni",
        (
            "  2. take over default/web: 192.168.39.193 by cali68caf03a5f4 (handle"
            " k8s-pod-network.web)"
        ),
        (
            "  3. replace 192.168.84.128/26 via 10.10.24.89 dev tunl0 proto 80 onlink by one of"
            " protocol bird"
        ),
        "  4. delete blackhole 192.168.39.192/26 proto 80: there is one of the wanted protocol",
        "  5. remove Calico's 2 chains by iptables-nft-restore",
        "  6. delete the nftables table ip calico",
        "  7. set the condition NetworkUnavailable of Node node-0 to False",
    ]


def test_a_pods_record_says_what_pycni_would_have_written() -> None:
    steps = plan().steps

    assert TakeOver(WEB_RECORD) in steps
    assert [type(one) for one in steps] == [Rename, TakeOver, TakeOver]
    assert plan().is_possible


def test_what_is_done_is_not_planned_again() -> None:
    named = veth(WEB, alias=alias_of(WEB_RECORD.key))
    done = kernel((pod_route(193, WEB), pod_route(194, DB)), named, veth(DB))

    assert taken(changed(kernel=done, records=(WEB_RECORD,))) == ["db"]


def test_after_a_crash_between_record_and_name_the_same_record_is_named() -> None:
    record = replace(WEB_RECORD, pod_mac="as it was written")

    assert TakeOver(record) in plan(changed(records=(record,))).steps


def left(found: Found) -> str:
    """Return why the one address is left, whose interface is named after."""
    sentence, *_ = plan(found).left
    return sentence.partition(": ")[2]


def with_web(**fields: object) -> Found:
    only = {
        "blocks": (block(of_pod("web")),),
        "kernel": kernel((pod_route(193, WEB),), veth(WEB)),
    }
    return changed(**(only | fields))


def test_what_can_not_be_taken_over_is_left_with_its_reason() -> None:
    other = block(attribute("cni0.web", node="node-0", pod="web"))
    bare = block(attribute(f"{NETWORK}.web", node="node-0"))
    nameless = block(attribute(f"{NETWORK}.", node="node-0", pod="web"))
    bridge = kernel((pod_route(193, WEB),), replace(veth(WEB), kind="bridge"))
    foreign = kernel((pod_route(193, WEB),), veth(WEB, alias="mine"))

    assert left(with_web(blocks=(other,))) == f"it is none of the network {NETWORK}"
    assert left(with_web(blocks=(nameless,))) == f"it is none of the network {NETWORK}"
    assert left(with_web(blocks=(bare,))) == "it names no pod"
    assert left(with_web(kernel=bridge)) == f"pod default/web has no interface {WEB} here"
    assert left(with_web(kernel=foreign)) == f"{WEB} says that it is another's: 'mine'"
    for ends in ({}, {WEB: end("web", address(194))}):
        assert left(with_web(ends=ends)) == (
            f"what {WEB} leads to has not this address, or is nowhere to be seen"
        )


def test_an_interface_of_a_pod_without_an_address_of_a_block_is_named() -> None:
    other = replace(veth("cali0123456789a"), kind="dummy")
    found = changed(
        blocks=(),
        kernel=kernel((), veth(WEB), veth(DB), veth("eth0"), other),
        records=(WEB_RECORD,),
    )

    assert plan(found).left == [
        (
            f"interface {DB}: no block holds an address for its pod"
            " (had it cni.projectcalico.org/ipAddrsNoIpam?)"
        )
    ]


def test_of_two_sandboxes_of_a_pod_the_one_with_the_route_is_taken_over() -> None:
    two = block(of_pod("web", container="old"), of_pod("web", container="new"))
    found = changed(
        blocks=(two,),
        kernel=kernel((pod_route(194, WEB),), veth(WEB)),
        ends={WEB: end("web", address(194))},
    )

    (step,) = (one for one in plan(found).steps if isinstance(one, TakeOver))
    assert step.endpoint.key.container_id == "new"
    assert "another sandbox of its pod has that" in left(found)


def test_other_nodes_pods_tunnels_and_pods_of_pycnis_are_none_of_calicos() -> None:
    ours = attribute(
        f"{NETWORK}.c", node="node-0", pod="web", network=NETWORK, container="c", interface="eth0"
    )

    found = changed(blocks=(block(of_pod("web", node="node-1"), ours),), kernel=kernel(()))

    assert taken(found) == []
    assert plan(found).left == []


def test_a_block_that_contradicts_itself_proves_nothing() -> None:
    broken = replace(block(of_pod("web")), unallocated=(1, 2))

    assert taken(changed(blocks=(broken,))) == []


def test_both_addresses_of_a_pod_are_in_one_record() -> None:
    pod = of_pod("web")
    prefix = ip_network("fd00::/122")
    six = replace(block(pod), cidr=prefix)
    both = {WEB: end("web", address(193), ip_address("fd00::1"))}
    found = changed(blocks=(block(pod), six), ends=both)

    records = [one.endpoint for one in plan(found).steps if isinstance(one, TakeOver)]

    assert [str(a.interface) for one in records for a in one.addresses] == [
        "192.168.39.193/32",
        "fd00::1/128",
    ]


def hand_overs(*routes: Route, own: int = 12) -> list[HandOver]:
    found = changed(kernel=kernel(routes), blocks=(), route_protocol=own)
    return [one for one in plan(found).steps if isinstance(one, HandOver)]


def test_bird_and_felix_hand_over_their_routes_where_pycni_has_another_protocol() -> None:
    assert hand_overs(learned(), blackhole()) == []
    assert hand_overs(learned(), own=99) == [HandOver(learned(), learned(protocol=99))]
    assert hand_overs(blackhole(protocol=80)) == [HandOver(blackhole(protocol=80), blackhole())]
    assert hand_overs(learned(protocol=80), learned(), own=99) == [
        HandOver(learned(protocol=80), learned(protocol=99)),
        HandOver(learned(), None),
    ]


def test_no_other_route_is_touched() -> None:
    elsewhere = learned("172.16.0.0/26", protocol=80)
    other_table = Route(RouteKey(CIDR, table=100), protocol=80, next_hops=learned().next_hops)
    static = learned(protocol=4)
    connected = Route(
        RouteKey(ip_network("192.168.1.0/26")),
        protocol=80,
        next_hops=frozenset({NextHop("eth0")}),
    )
    pods = replace(
        pod_route(193, WEB),
        protocol=80,
        next_hops=frozenset({NextHop(WEB, ip_address("10.0.0.1"))}),
    )
    sixth = Route(RouteKey(ip_network("fd00::/64")), protocol=80)

    assert hand_overs(elsewhere, other_table, static, connected, pods, sixth) == []


def test_signs_of_another_dataplane_are_refused() -> None:
    vxlan = changed(kernel=kernel((), veth("vxlan.calico")))

    assert "Calico sends by VXLAN here" in plan(vxlan).refused[0]
    assert not plan(vxlan).is_possible


def test_a_plan_tells_what_has_to_be_remembered() -> None:
    found = changed(kernel=kernel((learned(protocol=80),)), blocks=())

    assert moved(plan(found)) == (Moved("10-calico.conflist", "10-calico.conflist.before-pycni"),)
    assert protocols(plan(found)) == (("192.168.84.128/26", 80),)


# --- back ---------------------------------------------------------------------------------------

STOPPED = changed(agent=Agent(is_running=False, complaint="it doesn't run"), records=(WEB_RECORD,))
FILES = frozenset({"10-calico.conflist.aside", "10-pycni.conflist"})


def test_the_way_back_undoes_what_the_way_there_did() -> None:
    state = kernel((learned(), blackhole()))
    state.ruleset = "digest"
    migration = replace(MIGRATION, protocols=(("192.168.84.128/26", 80),))

    back = plan_return(replace(STOPPED, kernel=state), migration, files=FILES)

    assert back.steps == [
        Rename("10-calico.conflist.aside", "10-calico.conflist"),
        LetGo(WEB_RECORD),
        HandOver(learned(), learned(protocol=80)),
        RemoveTable("inet pycni"),
    ]
    assert "  2. let go of default/web: 192.168.39.193 by" in plan_text(back)
    assert "nothing masquerades" in back.attention[0]
    assert back.is_possible


def test_routes_of_a_protocol_of_ours_become_birds() -> None:
    found = replace(STOPPED, kernel=kernel((learned(protocol=99),)), route_protocol=99, records=())

    assert plan_return(found, MIGRATION, files=frozenset({"10-calico.conflist"})).steps == [
        HandOver(learned(protocol=99), learned())
    ]


def test_a_running_agent_debts_another_node_and_a_lost_file_stand_in_the_way() -> None:
    back = plan_return(
        changed(node="node-9", debts=2), MIGRATION, files=frozenset({"10-pycni.conflist"})
    )

    assert back.refused == ["it was node node-0 that was migrated: name it by --node"]
    assert [one.split(",")[0] for one in back.first] == [
        "pycni's agent runs",
        "2 releases of addresses are owed",
        (
            "neither 10-calico.conflist nor 10-calico.conflist.aside is there: let Calico's"
            " installer"
            " write its configuration"
        ),
    ]


def test_an_interface_of_another_plugins_is_left() -> None:
    record = replace(WEB_RECORD, host_veth="", pod_name="")

    back = plan_return(replace(STOPPED, records=(record,)), MIGRATION, files=FILES)

    assert not [one for one in back.steps if isinstance(one, LetGo)]
    assert back.left == [
        "k8s-pod-network/web/eth0: its interface is another plugin's, by pycni-ipam"
    ]
    named = LetGo(replace(record, host_veth=WEB))
    assert "k8s-pod-network/web/eth0: 192.168.39.193" in plan_text(Plan("x", [named]))
