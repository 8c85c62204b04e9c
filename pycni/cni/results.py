"""Results and errors in the spelling of each version of the specification.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pycni.cni.errors import CniError
from pycni.model.endpoints import GATEWAY_V4
from pycni.model.network import IPAddress

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The gateway that every pod sees; nobody has it, the host end answers by proxy ARP."""
_GATEWAY = str(GATEWAY_V4)


@dataclass(frozen=True, slots=True)
class AddResult:
    """What an ADD achieved, before it is spelled for a version."""

    host_veth: str
    host_mac: str
    ifname: str
    pod_mac: str
    netns: str
    mtu: int
    addresses: Sequence[IPAddress]
    has_default_route: bool = True
    dns: Mapping[str, Any] = field(default_factory=dict)


def render_result(result: AddResult, *, version: str) -> dict[str, Any]:
    """Spell a result for a version: 0.x names the family of each address, 1.1 knows MTUs."""
    host: dict[str, Any] = {"name": result.host_veth, "mac": result.host_mac}
    pod: dict[str, Any] = {"name": result.ifname, "mac": result.pod_mac, "sandbox": result.netns}
    if version == "1.1.0":
        host["mtu"] = pod["mtu"] = result.mtu
    ips = []
    routes = []
    for address in result.addresses:
        entry: dict[str, Any] = {"address": f"{address}/{address.max_prefixlen}", "interface": 1}
        if address.version == 4:
            entry["gateway"] = _GATEWAY
        if version.startswith("0."):
            entry["version"] = str(address.version)
        ips.append(entry)
        if result.has_default_route:
            routes.append({"dst": "0.0.0.0/0" if address.version == 4 else "::/0"})
            if address.version == 4:
                routes[-1]["gw"] = _GATEWAY
    document: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [host, pod],
        "ips": ips,
        "routes": routes,
    }
    if result.dns or version.startswith("0."):
        document["dns"] = dict(result.dns)
    return document


def render_version(version: str) -> dict[str, Any]:
    """Answer VERSION."""
    return {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def render_error(error: CniError, *, version: str) -> dict[str, Any]:
    """Spell an error."""
    document: dict[str, Any] = {
        "cniVersion": version,
        "code": int(error.code),
        "msg": error.msg,
    }
    if error.details:
        document["details"] = error.details
    return document
