"""Results and errors in the spelling of each version of the specification.  Pure.

A result is put together in the spelling of 1.1.0 and translated at the border, also what another
plugin of the list handed us (`prevResult`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeGuard

from pycni.cni.errors import CniError
from pycni.model.endpoints import GATEWAY_V4, AssignedAddress
from pycni.model.network import IPAddress

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_LATEST = SUPPORTED_VERSIONS[-1]
_WITHOUT_INTERFACES = ("0.1.0", "0.2.0")
_GATEWAY = str(GATEWAY_V4)
"""The gateway that every pod sees; nobody has it, the host end answers by proxy ARP."""

# What came with 1.1.0; a route of before is `dst` and `gw`.
_NEW_OF_INTERFACES = ("mtu", "socketPath", "pciID")
_OLD_OF_ROUTES = ("dst", "gw")
_DNS = ("nameservers", "domain", "search", "options")
_NUMBERS_OF_ROUTES = ("mtu", "advmss", "priority", "table", "scope")


class NoResult(Exception):
    """What can't be read as a result, as the end of a sentence."""


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
    previous: Mapping[str, Any] | None = None
    """What the plugins before us had achieved, in the spelling of 1.1.0."""


def render_result(result: AddResult, *, version: str) -> dict[str, Any]:
    """Spell a result, behind what the plugins before us gave."""
    before = result.previous or {}
    interfaces = list(before.get("interfaces", ()))
    ours: list[dict[str, Any]] = [
        {"name": result.host_veth, "mac": result.host_mac, "mtu": result.mtu},
        {
            "name": result.ifname,
            "mac": result.pod_mac,
            "sandbox": result.netns,
            "mtu": result.mtu,
        },
    ]
    ips = list(before.get("ips", ()))
    routes = list(before.get("routes", ()))
    for address in result.addresses:
        entry: dict[str, Any] = {
            "address": f"{address}/{address.max_prefixlen}",
            "interface": len(interfaces) + 1,
        }
        if address.version == 4:
            entry["gateway"] = _GATEWAY
        ips.append(entry)
        if result.has_default_route:
            routes.append({"dst": "0.0.0.0/0" if address.version == 4 else "::/0"})
            if address.version == 4:
                routes[-1]["gw"] = _GATEWAY
    document = {
        "interfaces": interfaces + ours,
        "ips": ips,
        "routes": routes,
        "dns": dict(result.dns or before.get("dns", {})),
    }
    return spelled(document, version=version)


def render_addresses(
    addresses: Sequence[AssignedAddress],
    *,
    routes: Sequence[Mapping[str, Any]],
    dns: Mapping[str, Any],
    version: str,
) -> dict[str, Any]:
    """Spell what an IPAM plugin gives: no interfaces, and routes of the addresses' families."""
    ips = []
    for assigned in addresses:
        ips.append({"address": str(assigned.interface)})
        if assigned.gateway is not None:
            ips[-1]["gateway"] = str(assigned.gateway)
    families = {assigned.interface.version for assigned in addresses}
    reachable = [dict(route) for route in routes if ip_interface(route["dst"]).version in families]
    return spelled({"ips": ips, "routes": reachable, "dns": dict(dns)}, version=version)


def spelled(document: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """Spell a result of 1.1.0 for a version; what that version has no words for is left out."""
    if version == _LATEST:
        return {"cniVersion": version, **document}
    if version in _WITHOUT_INTERFACES:
        return _by_family(document, version)
    ips = document.get("ips", ())
    interfaces = [
        {key: value for key, value in one.items() if key not in _NEW_OF_INTERFACES}
        for one in document.get("interfaces", ())
    ]
    return {
        "cniVersion": version,
        **({"interfaces": interfaces} if "interfaces" in document else {}),
        "ips": [{**one, "version": _family(one)} for one in ips]
        if version.startswith("0.")
        else ips,
        "routes": [_old_route(route) for route in document.get("routes", ())],
        "dns": dict(document.get("dns", {})),
    }


def _by_family(document: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Spell a result as 0.1.0 and 0.2.0 know it: one address of each family, no interfaces."""
    old: dict[str, Any] = {"cniVersion": version}
    for one in document.get("ips", ()):
        family = f"ip{_family(one)}"
        if family in old:
            continue
        entry = {"ip": one["address"]}
        if "gateway" in one:
            entry["gateway"] = one["gateway"]
        routes = [
            _old_route(route)
            for route in document.get("routes", ())
            if (":" in str(route["dst"])) == (family == "ip6")
        ]
        old[family] = {**entry, "routes": routes} if routes else entry
    old["dns"] = dict(document.get("dns", {}))
    return old


def _family(ip: Mapping[str, Any]) -> str:
    return "6" if ":" in str(ip["address"]) else "4"


def _old_route(route: Mapping[str, Any]) -> dict[str, Any]:
    return {key: route[key] for key in _OLD_OF_ROUTES if key in route}


# --- reading --------------------------------------------------------------------------------------


def read_result(document: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """Read what another plugin achieved, of whatever version; return it as of 1.1.0.

    `version` is that of the configuration, for a result that doesn't name its own.  Raises
    `NoResult`.
    """
    said = document.get("cniVersion") or version
    if said not in SUPPORTED_VERSIONS:
        raise NoResult(f"cniVersion {said!r:.60} is unknown")
    if said in _WITHOUT_INTERFACES:
        document = _from_families(document)
    read: dict[str, Any] = {}
    for key in ("interfaces", "ips", "routes"):
        read[key] = [dict(one) for one in _objects(document, key)]
    for one in read["interfaces"]:
        _check_texts(one, ("name", "mac", "sandbox"))
    for one in read["ips"]:
        one.pop("version", None)
        _check_address(one, len(read["interfaces"]))
        _check_texts(one, ("gateway",))
    for route in read["routes"]:
        _check_network(route.get("dst"))
        _check_texts(route, ("gw",))
    dns = read_dns(document.get("dns"), bad=NoResult)
    return {**read, "dns": dns} if dns else read


def read_dns(said: object, *, bad: Callable[[str], Exception]) -> dict[str, Any]:
    """Read what a result says of DNS; what a runtime can't decode would fail a pod that is made."""
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise bad("'dns' must be an object")
    for key in ("nameservers", "search", "options"):
        items = said.get(key) or []
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise bad(f"'dns': {key!r} must be a list of strings")
    if not isinstance(said.get("domain") or "", str):
        raise bad("'dns': 'domain' must be a string")
    return {key: value for key, value in said.items() if key in _DNS and value}


def read_routes(said: object, *, bad: Callable[[str], Exception]) -> tuple[dict[str, Any], ...]:
    """Read the routes that an IPAM configuration wants handed on, in the words of 1.1.0."""
    if not isinstance(said, list) or not all(isinstance(one, Mapping) for one in said):
        raise bad("'routes' must be a list of objects")
    return tuple([_read_route(one, bad=bad) for one in said])


def _read_route(route: Mapping[str, Any], *, bad: Callable[[str], Exception]) -> dict[str, Any]:
    known = (*_OLD_OF_ROUTES, *_NUMBERS_OF_ROUTES)
    if unknown := sorted(route.keys() - set(known)):
        raise bad(f"'routes': unknown key {unknown[0]!r:.60}: use {', '.join(known)}")
    try:
        # A number, or one with a zone ("%eth0"), is an address to `ipaddress`, and to nobody else.
        if not all(_is_plain(route.get(key, "")) for key in ("dst", "gw")):
            raise TypeError
        dst = ip_network(route["dst"])
        gateway = ip_address(route["gw"]) if "gw" in route else None
    except (KeyError, TypeError, ValueError):
        raise bad(
            f"'routes': {dict(route)!r:.80} needs 'dst', a network such as 0.0.0.0/0, and may have"
            " 'gw', an address"
        ) from None
    if gateway is not None and gateway.version != dst.version:
        raise bad(f"'routes': {dst} and its gateway {gateway} are not of one IP version")
    for key in _NUMBERS_OF_ROUTES:
        number = route.get(key, 0)
        if type(number) is not int or not 0 <= number < 1 << 32:
            raise bad(f"'routes': {key!r} of {dst} must be a number, not {number!r:.60}")
    return {**route, "dst": str(dst)} | ({"gw": str(gateway)} if gateway is not None else {})


def _check_texts(document: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        if not isinstance(document.get(key) or "", str):
            raise NoResult(f"{key!r} must be a string, not {document[key]!r:.60}")


def _from_families(document: Mapping[str, Any]) -> dict[str, Any]:
    ips: list[Any] = []
    routes: list[Any] = []
    for family in ("ip4", "ip6"):
        one = document.get(family)
        if one is None:
            continue
        if not isinstance(one, Mapping):
            raise NoResult(f"{family!r} must be an object")
        entry = {"address": one.get("ip")}
        if one.get("gateway"):
            entry["gateway"] = one["gateway"]
        ips.append(entry)
        routes += _objects(one, "routes")
    return {"ips": ips, "routes": routes, "dns": document.get("dns")}


def _objects(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    items = document.get(key) or ()  # Go's empty slice is null
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, Mapping) for i in items):
        raise NoResult(f"{key!r} must be a list of objects")
    return items


def _check_address(ip: Mapping[str, Any], interfaces: int) -> None:
    _check_network(ip.get("address"))
    index = ip.get("interface")
    if index is None:
        return
    if type(index) is not int or not 0 <= index < interfaces:
        raise NoResult(
            f"'interface' {index!r:.60} of {ip['address']} is no index into 'interfaces'"
        )


def _is_plain(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and "%" not in text


def _check_network(text: object) -> None:
    try:
        if not _is_plain(text) or "/" not in text:
            raise ValueError(text)
        ip_interface(text)
    except ValueError:
        raise NoResult(f"{text!r:.60} is no address with a prefix length") from None


# --- answers without a result ---------------------------------------------------------------------


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
