"""What annotations of a pod, and of its namespace, ask for: Calico's, by name and meaning.  Pure.

Whoever may make pods writes them: each is checked as strictly as what a runtime says.  Those of the
pod come before those of its namespace, and both before the network's configuration.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from pycni.cni.errors import CniError, Code
from pycni.cni.netconf import spelled_pool
from pycni.cni.protocol import Request
from pycni.cni.wishes import Unwishable, Wishes, wished_addresses, wished_mac
from pycni.model.endpoints import POD_ANNOTATION
from pycni.model.network import IPAddress

_UNSUPPORTED = ("ipAddrsNoIpam", "floatingIPs")
_FAMILIES = {"IPv4": 4, "IPv6": 6}
_LONGEST = 4096
_MOST_POOLS = 64


def annotated(request: Request, *, pod: Mapping[str, str], namespace: Mapping[str, str]) -> Request:
    """Return an ADD as the annotations of its pod change it; raise `CniError` for bad ones."""
    for key in _UNSUPPORTED:
        if pod.get(POD_ANNOTATION + key):
            raise _refused(key, "pycni does not support it: remove it")
    config = request.config
    wishes = Wishes(addresses=_addresses(pod), mac=_mac(pod))
    if config.ipam_plugin:
        if wishes.addresses:
            raise _refused(
                "ipAddrs", f"addresses are given by {config.ipam_plugin} here: remove it"
            )
        return replace(request, config=replace(config, wishes=wishes.or_else(config.wishes)))
    said = {**namespace, **{key: text for key, text in pod.items() if text}}
    if wishes.addresses:
        # As in Calico, an address is had whatever pools others have named.
        said, config = dict(pod), replace(config, ipv4_pools=(), ipv6_pools=())
    versions = _versions(said)
    return replace(
        request,
        config=replace(
            config,
            ipv4_pools=_pools(said, 4) or config.ipv4_pools,
            ipv6_pools=_pools(said, 6) or config.ipv6_pools,
            assign_ipv4=4 in versions if versions else config.assign_ipv4,
            assign_ipv6=6 in versions if versions else config.assign_ipv6,
            wishes=wishes.or_else(config.wishes),
        ),
    )


def _refused(key: str, why: str) -> CniError:
    return CniError(Code.INVALID_CONFIGURATION, f"annotation {POD_ANNOTATION}{key}: {why}")


def _texts(said: Mapping[str, str], key: str) -> list[str]:
    """Return a list of strings, which an annotation holds as JSON; an empty one says nothing."""
    text = said.get(POD_ANNOTATION + key, "")
    if not text:
        return []
    example = 'it must be a list of strings, such as ["one", "two"]'
    if len(text) > _LONGEST:
        raise _refused(key, f"{len(text)} characters are too many; {example}")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused(key, f"{text!r:.60} is no JSON; {example}") from None
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise _refused(key, f"{text!r:.60}: {example}")
    return items


def _pools(said: Mapping[str, str], version: int) -> tuple[str, ...]:
    """Return names of pools, and CIDRs as they are usually spelled."""
    key = f"ipv{version}pools"
    pools = []
    for item in _texts(said, key):
        try:
            pool, other = spelled_pool(item)
        except ValueError as exc:
            raise _refused(key, f"{item!r:.60} is no CIDR: {exc}") from None
        if other not in (None, version):
            raise _refused(key, f"{pool} is IPv{other}: name it in ipv{other}pools")
        pools.append(pool)
    if len(pools) > _MOST_POOLS:
        raise _refused(key, f"{len(pools)} pools are too many: name {_MOST_POOLS} at most")
    return tuple(pools)


def _versions(said: Mapping[str, str]) -> frozenset[int]:
    families = _texts(said, "ipFamilies")
    for family in families:
        if family not in _FAMILIES:
            raise _refused("ipFamilies", f"{family!r:.60} is none: name IPv4, IPv6 or both")
    return frozenset(_FAMILIES[family] for family in families)


def _addresses(pod: Mapping[str, str]) -> tuple[IPAddress, ...]:
    try:
        return wished_addresses(_texts(pod, "ipAddrs"))
    except Unwishable as exc:
        raise _refused("ipAddrs", str(exc)) from None


def _mac(pod: Mapping[str, str]) -> str:
    try:
        return wished_mac(pod.get(POD_ANNOTATION + "hwAddr", ""))
    except Unwishable as exc:
        raise _refused("hwAddr", str(exc)) from None
