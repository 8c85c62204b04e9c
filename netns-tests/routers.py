"""BIRD, FRR and GoBGP in a place of the lab: reflectors of the nodes, or a router of another AS.

Each has its own files and sockets in /run/PLACE, hold time 9 s and graceful restart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster import Cluster

NODES = {"node-0": "10.10.7.20", "node-1": "10.10.24.89", "node-2": "10.10.43.25"}
NODES_AS = 64512
PROGRAMS = {
    "bird": ("bird", "bird2"),
    "frr": ("/usr/lib/frr/bgpd", "frr"),
    "gobgp": ("gobgpd", "gobgpd"),
}


@dataclass(frozen=True, slots=True)
class Router:
    """What to be: `cluster_id` makes a reflector, of the nodes' own AS; `hops` is GTSM's."""

    place: str
    address: str
    as_number: int = NODES_AS
    cluster_id: str | None = None
    hops: int | None = None

    @property
    def directory(self) -> str:
        return f"/run/{self.place}"


def start(cluster: Cluster, engine: str, router: Router) -> None:
    """Start an engine; it fails at once where its configuration is none."""
    program, package = PROGRAMS[engine]
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: run  apt-get install {package}")
    files, commands = {"bird": bird, "frr": frr, "gobgp": gobgp}[engine](router)
    cluster.run(router.place, f"mkdir -p {router.directory}")
    for name, text in files.items():
        cluster.run(router.place, f"cat > {router.directory}/{name} <<'X'\n{text}\nX")
    for command in commands:
        cluster.run(router.place, f"cd {router.directory} && {command}")


def kill(cluster: Cluster, router: Router) -> None:
    """End an engine without a word to its peers."""
    cluster.run(router.place, f"kill -9 $(cat {router.directory}/bgp.pid)")


def bird(router: Router) -> tuple[Mapping[str, str], list[str]]:
    if router.cluster_id is None:
        role, next_hop = "ttl security on;" if router.hops == 1 else "multihop;", "self"
    else:
        role, next_hop = f"multihop; rr client; rr cluster id {router.cluster_id};", "keep"
    # Next door it takes the interface's own address.
    own = "" if router.hops == 1 else router.address
    lines = [
        f"router id {router.address};",
        "protocol device {}",
        "protocol kernel { ipv4 { export all; }; }" if router.cluster_id is None else "",
        f"template bgp node {{ local {own} as {router.as_number}; hold time 9;",
        f"  graceful restart yes; {role}",
        f"  ipv4 {{ import all; export all; next hop {next_hop}; }}; }}",
    ]
    for name, address in NODES.items():
        session = f"neighbor {address} as {NODES_AS};"
        lines.append(f"protocol bgp {name.replace('-', '')} from node {{ {session} }}")
    # -R: it says that it has kept forwarding (RFC 4724), as one that is upgraded does.
    return {"bird.conf": "\n".join(lines)}, ["bird -R -c bird.conf -s bird.ctl -P bgp.pid"]


def frr(router: Router) -> tuple[Mapping[str, str], list[str]]:
    session = [
        "neighbor nodes peer-group",
        f"neighbor nodes remote-as {NODES_AS}",
        f"neighbor nodes update-source {router.address}" if router.cluster_id else "",
        f"neighbor nodes ttl-security hops {router.hops}" if router.hops else "",
        *(f"neighbor {address} peer-group nodes" for address in NODES.values()),
    ]
    own = "route-reflector-client" if router.cluster_id else "next-hop-self"
    lines = [
        f"router bgp {router.as_number}",
        f" bgp router-id {router.address}",
        f" bgp cluster-id {router.cluster_id}" if router.cluster_id else "",
        " no bgp ebgp-requires-policy",
        " bgp graceful-restart",
        " timers bgp 3 9",
        *(f" {line}" for line in session),
        " address-family ipv4 unicast",
        f"  neighbor nodes {own}",
        " exit-address-family",
    ]
    text = "\n".join(line for line in lines if line.strip())
    sockets = "--vty_socket . -z zserv.api"
    return {"bgpd.conf": text, "zebra.conf": ""}, [
        "mkdir -p /run/frr && chown frr: . /run/frr",
        f"/usr/lib/frr/zebra -d -f zebra.conf -i zebra.pid {sockets}",
        f"/usr/lib/frr/bgpd -d -f bgpd.conf -i bgp.pid {sockets}",
    ]


def gobgp(router: Router) -> tuple[Mapping[str, str], list[str]]:
    neighbours = [
        {
            "config": {"neighbor-address": address, "peer-as": NODES_AS},
            # It keeps back what has been in the peer's own AS, and all nodes are of one.
            "as-path-options": {"config": {"replace-peer-as": router.cluster_id is None}},
            "timers": {"config": {"hold-time": 9, "keepalive-interval": 3, "connect-retry": 5}},
            "graceful-restart": {"config": {"enabled": True, "restart-time": 120}},
            "afi-safis": [
                {
                    "config": {"afi-safi-name": "ipv4-unicast"},
                    "mp-graceful-restart": {"config": {"enabled": True}},
                }
            ],
            **(
                {
                    "transport": {"config": {"local-address": router.address}},
                    "route-reflector": {
                        "config": {
                            "route-reflector-client": True,
                            "route-reflector-cluster-id": router.cluster_id,
                        }
                    },
                }
                if router.cluster_id
                else {}
            ),
            **(
                {"ttl-security": {"config": {"enabled": True, "ttl-min": 256 - router.hops}}}
                if router.hops
                else {}
            ),
        }
        for address in NODES.values()
    ]
    document = {
        "global": {"config": {"as": router.as_number, "router-id": router.address}},
        "neighbors": neighbours,
    }
    # It does not go into the background by itself.
    begin = "gobgpd -t json -f gobgp.json --api-hosts 127.0.0.1:50051 > gobgp.log 2>&1 &"
    return {"gobgp.json": json.dumps(document)}, [f"{begin} echo $! > bgp.pid"]
