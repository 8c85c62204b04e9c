"""Endpoint records and journalled releases as JSON: as files keep them and the agent tells them."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from ipaddress import ip_address, ip_interface
from typing import Any

from pycni.errors import DatastoreUnusable
from pycni.model.endpoints import (
    AssignedAddress,
    Delegation,
    EndpointKey,
    EndpointState,
    NetnsSight,
    PendingRelease,
    WorkloadEndpoint,
)


def _addresses_document(addresses: Sequence[AssignedAddress]) -> list[dict[str, Any]]:
    return [_address_document(a) for a in addresses]


def _address_document(assigned: AssignedAddress) -> dict[str, Any]:
    document = {"address": str(assigned.interface), "sequence": assigned.sequence_number}
    if assigned.gateway is not None:
        document["gateway"] = str(assigned.gateway)
    return document


# A pod's address is in each of its records, and a /26 has not many.
_interface = lru_cache(maxsize=1 << 10)(ip_interface)


def _addresses_value(items: Any) -> tuple[AssignedAddress, ...]:  # noqa: ANN401  # JSON
    return tuple(
        AssignedAddress(
            _interface(i["address"]),
            i["sequence"],
            ip_address(i["gateway"]) if "gateway" in i else None,
        )
        for i in items
    )


def _key_document(key: EndpointKey) -> dict[str, str]:
    return {"network": key.network, "containerID": key.container_id, "ifname": key.ifname}


def _key_value(item: dict[str, str]) -> EndpointKey:
    return EndpointKey(item["network"], item["containerID"], item["ifname"])


def endpoint_document(endpoint: WorkloadEndpoint) -> dict[str, Any]:
    """Return a record as it is kept, and as the agent tells it."""
    document = {
        "key": _key_document(endpoint.key),
        "node": endpoint.node,
        "netns": endpoint.netns,
        "hostVeth": endpoint.host_veth,
        "handle": endpoint.handle_id,
        "state": endpoint.state.value,
        "addresses": _addresses_document(endpoint.addresses),
        "mtu": endpoint.mtu,
        "hostMAC": endpoint.host_mac,
        "podMAC": endpoint.pod_mac,
        "podNamespace": endpoint.pod_namespace,
        "podName": endpoint.pod_name,
    }
    if endpoint.sight is not None:
        seen = endpoint.sight
        document["sight"] = {"mountNamespace": seen.mount_namespace, "inode": seen.inode}
    if endpoint.delegation is not None:
        document["delegation"] = asdict(endpoint.delegation)
    return document


def _sight_value(item: dict[str, int] | None) -> NetnsSight | None:
    return None if item is None else NetnsSight(item["mountNamespace"], item["inode"])


def _delegation_value(item: dict[str, str] | None) -> Delegation | None:
    return None if item is None else Delegation(**item)


def parse_endpoint(path: str, document: dict[str, Any]) -> WorkloadEndpoint:
    """Read a record; `path` is where it came from."""
    try:
        return WorkloadEndpoint(
            key=_key_value(document["key"]),
            node=document["node"],
            netns=document["netns"],
            host_veth=document["hostVeth"],
            handle_id=document["handle"],
            state=EndpointState(document["state"]),
            addresses=_addresses_value(document["addresses"]),
            mtu=document["mtu"],
            host_mac=document["hostMAC"],
            pod_mac=document["podMAC"],
            pod_namespace=document["podNamespace"],
            pod_name=document["podName"],
            sight=_sight_value(document.get("sight")),
            delegation=_delegation_value(document.get("delegation")),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise damaged(path, repr(exc)) from exc


def pending_document(pending: PendingRelease) -> dict[str, Any]:
    """Return a journalled release as it is kept, and as the agent tells it."""
    return {
        "key": _key_document(pending.key),
        "handle": pending.handle_id,
        "addresses": _addresses_document(pending.addresses),
    }


def parse_pending(path: str, document: dict[str, Any]) -> PendingRelease:
    """Read a journalled release; `path` is where it came from."""
    try:
        return PendingRelease(
            key=_key_value(document["key"]),
            handle_id=document["handle"],
            addresses=_addresses_value(document["addresses"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise damaged(path, repr(exc)) from exc


def damaged(path: str, why: object) -> DatastoreUnusable:
    """Say of a file that it holds no document of these."""
    return DatastoreUnusable(f"cannot read {path}: {why}; move it away and delete the pod")
