"""What BIRD 2, FRR and GoBGP are told to be: a configuration of each, and how each is started.

All have the hold time of nine seconds.  A session carries the prefixes of its own IP version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routers import Router

Files = Mapping[str, str]
AFI = {4: "ipv4-unicast", 6: "ipv6-unicast"}


def bird(router: Router, *, is_restart: bool) -> tuple[Files, list[str]]:
    """BIRD 2."""
    del is_restart
    lines = [f"router id {router.address};", "protocol device {}"]
    for version in router.versions:
        lines += _bird_family(router, version)
    for number, session in enumerate(router.sessions()):
        call = f"neighbor {session.remote} port {router.nodes_port} as {router.nodes_as};"
        lines.append(f"protocol bgp b{number} from nodes{session.version} {{ {call} }}")
    # -R: it says that it has kept forwarding (RFC 4724), as one that is upgraded does.
    return {"bird.conf": "\n".join(lines)}, ["bird -R -c bird.conf -s bird.ctl -P bgp.pid"]


def _bird_family(router: Router, version: int) -> Iterator[str]:
    if router.hops == 1:
        role = "ttl security on;"
    else:
        hops = "" if router.hops is None else f"{router.hops}; ttl security on"
        role = f"multihop {hops};"
    if router.cluster_id is not None:
        role += f" rr client; rr cluster id {router.cluster_id};"
    if router.password is not None:
        role += f' password "{router.password}";'
    # Next door it takes the interface's own address.
    own = "" if router.hops == 1 else router.end(version)
    restart = "yes" if router.is_graceful else "no"
    sent = "where source = RTS_STATIC" if router.is_member else "all"
    next_hop = "keep" if router.cluster_id is not None else "self"
    channel = f"ipv{version} {{ import all; export {sent}; next hop {next_hop}; }};"
    if router.is_transit:
        yield f"protocol kernel {{ ipv{version} {{ export all; }}; }}"
    blocks = "".join(f" route {block} blackhole;" for block in router.own_blocks(version))
    yield f"protocol static own{version} {{ ipv{version};{blocks} }}"
    yield (
        f"template bgp nodes{version} {{ local {own} port {router.port} as {router.as_number};"
        f" hold time 9; graceful restart {restart}; {role} {channel} }}"
    )


def frr(router: Router, *, is_restart: bool) -> tuple[Files, list[str]]:
    """FRR's bgpd, with a zebra of its own; what a member of the mesh learns stays out of kernel."""
    del is_restart
    restart = ["bgp graceful-restart", "bgp graceful-restart preserve-fw-state"]
    if not router.is_graceful:
        restart = ["bgp graceful-restart-disable"]
    lines = [
        f"router bgp {router.as_number}",
        f" bgp router-id {router.address}",
        f" bgp cluster-id {router.cluster_id}" if router.cluster_id else "",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " no bgp network import-check",
        *(f" {line}" for line in restart),
        " timers bgp 3 9",
    ]
    for version in router.versions:
        lines += _frr_family(router, version)
    text = "\n".join(line for line in lines if line.strip())
    sockets = "--vty_socket . -z zserv.api"
    kernel = "-n" if router.is_member else ""
    return {"bgpd.conf": text, "zebra.conf": ""}, [
        "mkdir -p /run/frr && chown frr: . /run/frr",
        f"/usr/lib/frr/zebra -d -f zebra.conf -i zebra.pid {sockets}",
        f"/usr/lib/frr/bgpd -d -f bgpd.conf -i bgp.pid -p {router.port} {kernel} {sockets}",
    ]


def _frr_family(router: Router, version: int) -> Iterator[str]:
    group = f"nodes{version}"
    yield f" neighbor {group} peer-group"
    yield f" neighbor {group} remote-as {router.nodes_as}"
    yield f" neighbor {group} port {router.nodes_port}"
    yield f" neighbor {group} password {router.password}" if router.password else ""
    yield f" neighbor {group} ttl-security hops {router.hops}" if router.hops else ""
    yield f" neighbor {group} update-source {router.end(version)}" if router.hops != 1 else ""
    for session in router.sessions(version):
        yield f" neighbor {session.remote} peer-group {group}"
    yield f" address-family ipv{version} unicast"
    yield f"  neighbor {group} activate"
    yield f"  neighbor {group} route-reflector-client" if router.cluster_id else ""
    yield f"  neighbor {group} next-hop-self" if router.is_transit else ""
    yield from (f"  network {block}" for block in router.own_blocks(version))
    yield " exit-address-family"


def gobgp(router: Router, *, is_restart: bool) -> tuple[Files, list[str]]:
    """GoBGP, which leaves the kernel's table to others."""
    document = {
        "global": {
            "config": {
                "as": router.as_number,
                "router-id": router.address,
                "port": router.port,
            }
        },
        "neighbors": [_gobgp_neighbour(router, s.version, s.remote) for s in router.sessions()],
    }
    # It does not go into the background by itself.
    kept = "-r" if is_restart else ""
    begin = f"gobgpd {kept} -t json -f gobgp.json --api-hosts 127.0.0.1:50051 > gobgp.log 2>&1 &"
    commands = [f"{{ {begin} echo $! > bgp.pid; }}"]
    ask = "gobgp -p 50051 global rib"
    for version in router.versions:
        for block in router.own_blocks(version):
            add = f"{ask} add -a ipv{version} {block}"
            commands.append(f"until {ask} >/dev/null 2>&1; do sleep 0.05; done && {add}")
    return {"gobgp.json": json.dumps(document)}, commands


def _gobgp_neighbour(router: Router, version: int, remote: str) -> dict[str, Any]:
    is_graceful = {"config": {"enabled": router.is_graceful}}
    family = {"config": {"afi-safi-name": AFI[version]}, "mp-graceful-restart": is_graceful}
    restart = {"enabled": router.is_graceful, "restart-time": 120}
    transport: dict[str, Any] = {"remote-port": router.nodes_port}
    if router.hops != 1:
        transport["local-address"] = router.end(version)
    found: dict[str, Any] = {
        "config": {
            "neighbor-address": remote,
            "peer-as": router.nodes_as,
            "auth-password": router.password or "",
        },
        "timers": {"config": {"hold-time": 9, "keepalive-interval": 3, "connect-retry": 5}},
        "graceful-restart": {"config": restart},
        "afi-safis": [family],
        "transport": {"config": transport},
        # It keeps back what has been in the peer's own AS, and all nodes are of one.
        "as-path-options": {"config": {"replace-peer-as": router.is_transit}},
    }
    if router.cluster_id is not None:
        client = {
            "route-reflector-client": True,
            "route-reflector-cluster-id": router.cluster_id,
        }
        found["route-reflector"] = {"config": client}
    if router.hops is not None:
        found["ttl-security"] = {"config": {"enabled": True, "ttl-min": 256 - router.hops}}
    return found
