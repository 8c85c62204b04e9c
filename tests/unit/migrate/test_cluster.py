"""What of a cluster's Calico is carried on, refused or left."""

from typing import Any

from pycni.migrate.cluster import PATHS, Document, Verdict, judge

CALICO = "/apis/crd.projectcalico.org/v1/"


def document(name: str, namespace: str = "", **spec: object) -> Document:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"metadata": metadata, "spec": spec}


def judged(path: str, *documents: Document) -> Verdict:
    assert path in PATHS
    return judge({path: documents})


def test_pools_without_tunnel_and_with_ipip_go_on() -> None:
    verdict = judged(
        CALICO + "ippools",
        document("one", cidr="192.168.0.0/16", ipipMode="CrossSubnet", natOutgoing=True),
        document("two", cidr="10.1.0.0/16", disabled=True),
    )

    assert verdict.kept == [
        "IPPool one: 192.168.0.0/16, ipipMode CrossSubnet, NAT out",
        "IPPool two: 10.1.0.0/16, ipipMode Never, disabled",
    ]
    assert verdict.refused == []


def test_a_pool_for_load_balancers_is_refused_by_name() -> None:
    verdict = judged(
        CALICO + "ippools",
        document("one", cidr="10.1.0.0/16", allowedUses=["LoadBalancer"]),
        document("two", cidr="10.2.0.0/16", allowedUses=["Workload", "Tunnel"]),
    )

    (refused,) = verdict.refused
    assert refused.startswith("IPPool one serves Services of type LoadBalancer (allowedUses)")
    assert verdict.kept == ["IPPool two: 10.2.0.0/16, ipipMode Never"]


def test_vxlan_and_what_agents_can_not_read_is_refused_by_name() -> None:
    pools = judged(
        CALICO + "ippools",
        document("one", cidr="192.168.0.0/16", vxlanMode="CrossSubnet"),
        document("two", cidr="10.1.0.0/16", namespaceSelector="all()"),
    )

    assert pools.refused == [
        (
            "IPPool one uses VXLAN (vxlanMode: CrossSubnet), which is not taken over in place: let"
            " Calico change the pool to ipipMode first, and all nodes follow"
        ),
        (
            "IPPool two: spec.namespaceSelector: unknown or unsupported field; remove it (pycni's"
            " agents can't read it as it is)"
        ),
    ]


def test_peers_and_settings_of_bgp_go_on_or_are_refused() -> None:
    peers = judged(
        CALICO + "bgppeers",
        document("rack", peerIP="10.0.0.1", asNumber=64513, node="node-0"),
        document("all", peerIP="10.0.0.2", asNumber=64513),
        document("secret", peerIP="10.0.0.3", asNumber=1, password={"secretKeyRef": {}}),
        document("chosen", peerIP="10.0.0.4", asNumber=1, nodeSelector="all()"),
        document("reflectors", peerSelector="rr == 'yes'", nodeSelector="all()"),
        document("strange", peerIP="10.0.0.5", asNumber=1, reachableBy="10.0.0.6"),
    )
    settings = judged(
        CALICO + "bgpconfigurations",
        document("default", asNumber=64600, nodeToNodeMeshEnabled=False),
        document("node.one", listenPort=1790),
        document("node.two", asNumber=64600),
    )
    # As Calico's definition completes it.
    usual = {"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"}
    mesh = judged(CALICO + "bgpconfigurations", document("default", **usual))

    assert peers.kept == [
        "BGPPeer rack: 10.0.0.1, AS 64513, of node node-0",
        "BGPPeer all: 10.0.0.2, AS 64513, of every node",
        "BGPPeer chosen: 10.0.0.4, AS 1, of nodes all()",
        "BGPPeer reflectors: nodes rr == 'yes', of nodes all()",
    ]
    assert [one.split(":")[0] for one in peers.refused] == ["BGPPeer secret", "BGPPeer strange"]
    assert settings.kept == [
        "BGPConfiguration default: AS 64600, without node-to-node mesh",
        "BGPConfiguration node.one: settings of node one alone",
    ]
    assert (
        "node.two: spec.asNumber: belongs into the BGPConfiguration named default"
        in (settings.refused[0])
    )
    assert mesh.kept == ["BGPConfiguration default: AS 64512, with node-to-node mesh"]


def test_filters_go_on_and_a_missing_one_is_told() -> None:
    rule = {"action": "Reject"}
    verdict = judge(
        {
            CALICO + "bgpfilters": [
                document("one", exportV4=[rule], exportV6=[rule], importV4=[rule]),
                document("new", importV4=[rule | {"asPathPrefix": [1]}]),
            ],
            CALICO + "bgppeers": [
                document("rack", peerIP="10.0.0.1", asNumber=1, filters=["one", "lost"])
            ],
        }
    )

    assert "BGPFilter one: rules for export 2, for import 1" in verdict.kept
    assert verdict.refused == [
        (
            "BGPFilter new: spec.importV4[0].asPathPrefix: unknown or unsupported field; remove it"
            " (pycni's agents can't read it as it is)"
        )
    ]
    assert verdict.attention == [
        (
            "BGPPeer rack names BGPFilter lost, which is not there: Calico passes over it, and"
            " nodes that have migrated exchange nothing with the peer: make the filter, or take"
            " its name out of the peer"
        )
    ]


def test_what_is_carried_on_without_a_word() -> None:
    verdict = judged(CALICO + "ipamconfigs", document("default", strictAffinity=True))

    assert verdict == Verdict()


def test_other_dataplanes_are_refused_and_other_settings_told() -> None:
    verdict = judged(
        CALICO + "felixconfigurations",
        document("default", bpfEnabled=True, wireguardEnabled=False, logSeverityScreen="Info"),
        document("node.one", interfacePrefix="eni", natPortRange="1:2", chainInsertMode="Append"),
    )

    assert verdict.refused == [
        (
            "FelixConfiguration default asks for the eBPF dataplane (bpfEnabled: true), which"
            " pycni has"
            " not: change that under Calico first"
        ),
        (
            "FelixConfiguration node.one asks for another name of pods' interfaces"
            " (interfacePrefix:"
            " eni), which pycni has not: change that under Calico first"
        ),
    ]
    assert verdict.attention == [
        "FelixConfiguration node.one: pycni does nothing of chainInsertMode, natPortRange"
    ]


def test_a_locked_datastore_is_refused() -> None:
    path = CALICO + "clusterinformations"

    assert "is locked" in judged(path, document("default", datastoreReady=False)).refused[0]
    assert judged(path, document("default", datastoreReady=True)) == Verdict()


def test_policies_and_host_endpoints_are_loudly_said_not_to_be_enforced() -> None:
    verdict = judge(
        {
            "/apis/networking.k8s.io/v1/networkpolicies": [
                document(f"p{n}", "default") for n in range(7)
            ],
            CALICO + "globalnetworkpolicies": [document("all")],
            CALICO + "hostendpoints": [document("eth0")],
        }
    )

    assert verdict.attention == [
        (
            "7 NetworkPolicy objects WILL NOT BE ENFORCED on a node that has migrated: every pod"
            " there"
            " can be reached (default/p0, default/p1, default/p2, default/p3, default/p4, and 2"
            " more)"
        ),
        (
            "1 GlobalNetworkPolicy object WILL NOT BE ENFORCED on a node that has migrated:"
            " every pod"
            " there can be reached (all)"
        ),
        "1 HostEndpoint object WILL NOT BE ENFORCED: nothing protects the node itself (eth0)",
    ]


def node(name: str, *, address: str = "", internal: str = "", **annotations: str) -> Document:
    if address:
        annotations["projectcalico.org/IPv4Address"] = address
    status: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "True"}]}
    if internal:
        status["addresses"] = [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": internal},
        ]
    return {"metadata": {"name": name, "annotations": annotations}, "status": status}


def test_a_node_that_peers_know_by_another_address_is_told_before_it_changes() -> None:
    verdict = judged(
        "/api/v1/nodes",
        node("one", address="10.1.0.1/24", internal="10.2.0.1"),
        node("two", address="10.1.0.2/24", internal="10.1.0.2"),
        node("three", address="10.1.0.3/24"),
        {"metadata": {"name": "four"}},
    )

    assert verdict.refused == []
    assert verdict.attention == [
        (
            "Node one is 10.1.0.1 to its peers, and its InternalIP is 10.2.0.1, which pycni takes:"
            " before its agent starts, state node_address: 10.1.0.1/24 in agent.yaml, or"
            " calico-node's IP_AUTODETECTION_METHOD as ip_autodetection_method"
        )
    ]


def test_what_a_kubelet_wrote_is_not_shown_as_it_is() -> None:
    escape = "\x1b[2J10.1.0.1/24"

    verdict = judged(
        "/api/v1/nodes",
        node("one", address=escape, internal="10.2.0.1"),
        node("two", address="10.1.0.2/24", internal=escape),
    )

    (told,) = verdict.attention
    assert told == (
        "Node one: projectcalico.org/IPv4Address can't be read, and counts as absent: correct that"
        " annotation"
    )


def test_of_several_internal_ips_the_first_is_the_one_that_pycni_takes() -> None:
    one = node("one", address="10.1.0.1/24", internal="10.2.0.1")
    one["status"]["addresses"].append({"type": "InternalIP", "address": "10.1.0.1"})

    (told,) = judged("/api/v1/nodes", one).attention

    assert "its InternalIP is 10.2.0.1, which pycni takes" in told


def test_nodes_that_are_said_to_have_no_network_are_known() -> None:
    down = dict(node("one"))
    down["status"] = {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}

    assert judged("/api/v1/nodes", down, node("two")).unavailable == {"one"}


def test_what_could_not_be_looked_at_is_told() -> None:
    verdict = judge({}, unread={CALICO + "felixconfigurations": "denied"})

    assert verdict.attention == ["not looked at: felixconfigurations (denied)"]
