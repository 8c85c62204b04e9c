"""Lines as ExaBGP 5.0.15 wrote them with BIRD 2 as its peer, and what they say.

Only times, process ids and the host's name were made plain.
"""

from ipaddress import ip_address, ip_network
from typing import Any

from pycni.model.bgp import Family, Path

PEER = ip_address("10.8.0.2")
BOTH = frozenset({Family.IPV4, Family.IPV6})


def line(kind: str, rest: str) -> bytes:
    return (
        '{ "exabgp": "5.0.0", "time": 1700000000.5, "host" : "node-1", "pid" : 35, "ppid" : 34, '
        f'"counter": 2, "type": "{kind}", "neighbor": {{ "address": {{ "local": "10.8.0.1", '
        '"peer": "10.8.0.2" }, "asn": { "local": 64512, "peer": 64512 }, '
        f'"router-id": "10.8.0.1" , {rest} }} }}'
    ).encode()


def update(message: str) -> bytes:
    return line("update", f'"direction": "receive", "message": {{ {message} }}')


def opened(capabilities: str) -> bytes:
    return line(
        "open",
        '"direction": "receive", "open": { "version": 4, "asn": 64512, "hold_time": 30, '
        f'"router_id": "10.8.0.2", "capabilities": {{ {capabilities} }} }}',
    )


def path(nlri: str, next_hop: str = "10.8.0.2", **attributes: Any) -> Path:  # noqa: ANN401 - any field of Path.
    return Path(ip_network(nlri), ip_address(next_hop), peer=PEER, **attributes)
