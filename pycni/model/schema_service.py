"""Read Kubernetes's Services and EndpointSlices, of which we want little.

Everybody who may make one in some namespace writes here: what says nothing that can be is left out,
and never keeps the rest, or other objects, from being read.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress
from pycni.model.services import BalancedService, EndpointSlice, Service

SERVICE_LABEL = "kubernetes.io/service-name"
"""Of an EndpointSlice: the Service that it is of, in its own namespace."""

OWN_CLASS = "calico"
"""The `loadBalancerClass` of Services that ask for us, as Calico calls itself."""

_ANNOTATION = "projectcalico.org/"
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
_VERSIONS = {"IPv4": 4, "IPv6": 6}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def parse_service(document: object) -> Service | None:
    """Return a Service that may be announced; None: it has no address of its own, or no name."""
    name = full_name(document)
    spec = _child(document, "spec")
    cluster_ips = _addresses(_items(spec, "clusterIPs") or [spec.get("clusterIP")])
    if name is None or spec.get("type", "ClusterIP") not in _TYPES or not cluster_ips:
        return None
    status = _child(_child(document, "status"), "loadBalancer")
    # Of the others the load balancer itself takes the packets: kube-proxy knows nothing of them.
    ingress = (_mapping(one) for one in _items(status, "ingress"))
    return Service(
        name=name,
        is_local=spec.get("externalTrafficPolicy") == "Local",
        cluster_ips=cluster_ips,
        external_ips=_addresses(_items(spec, "externalIPs")),
        load_balancer_ips=_addresses(
            [one.get("ip") for one in ingress if one.get("ipMode") != "Proxy"]
        ),
    )


def parse_slice(document: object) -> EndpointSlice | None:
    """Return an EndpointSlice of a Service; None: it is of none, or of names."""
    name, mapping = full_name(document), _mapping(document)
    labels = _child(_child(mapping, "metadata"), "labels")
    service, version = labels.get(SERVICE_LABEL), _VERSIONS.get(str(mapping.get("addressType")))
    if name is None or version is None or not _is_name(service):
        return None
    endpoints = [_mapping(one) for one in _items(mapping, "endpoints")]
    ready = [one for one in endpoints if _is_ready(one)]
    ending = [one for one in endpoints if _is_ending(one)]
    return EndpointSlice(
        name=name,
        service=f"{name.partition('/')[0]}/{service}",
        version=version,
        nodes=_nodes(ready),
        is_ready=bool(ready),
        ending_nodes=_nodes(ending),
        is_ending=bool(ending),
    )


def parse_balanced(document: object) -> BalancedService | None:
    """Return what a Service wishes of a load balancer; None: it has no name."""
    name, metadata, spec = (
        full_name(document),
        _child(document, "metadata"),
        _child(document, "spec"),
    )
    if name is None:
        return None
    status = _child(_child(document, "status"), "loadBalancer")
    ingress = _addresses([_mapping(one).get("ip") for one in _items(status, "ingress")])
    families = [one for one in _items(spec, "ipFamilies") if isinstance(one, str)]
    versions = [_VERSIONS[one] for one in families if one in _VERSIONS]
    made = BalancedService(
        name=name,
        uid=str(metadata.get("uid") or ""),
        is_ours=spec.get("type") == "LoadBalancer"
        and spec.get("loadBalancerClass") in (None, OWN_CLASS),
        versions=tuple(versions) or (4,),
        ingress=ingress,
        requires_all=spec.get("ipFamilyPolicy") == "RequireDualStack",
        revision=str(metadata.get("resourceVersion") or ""),
    )
    try:
        return _with_wishes(made, _child(metadata, "annotations"), spec.get("loadBalancerIP"))
    except InvalidInput as exc:
        return replace(made, fault=str(exc))


def _with_wishes(
    service: BalancedService, annotations: Mapping[str, object], address: object
) -> BalancedService:
    texts = _texts(annotations, "loadBalancerIPs") or ((str(address),) if address else ())
    addresses = _addresses(list(texts))
    if len(addresses) != len(texts):
        raise InvalidInput(f"cannot give {', '.join(texts)}: that is no list of addresses")
    if len({one.version for one in addresses}) != len(addresses):
        raise InvalidInput(
            f"cannot give {', '.join(texts)}: ask for one of each IP version at most"
        )
    asks = replace(service, addresses=addresses)
    # A mistake in what it has no use for keeps it from nothing.
    pools: dict[int, tuple[str, ...]] = {}
    faults = []
    for version in sorted(asks.wanted_versions):
        try:
            pools[version] = _texts(annotations, f"ipv{version}pools")
        except InvalidInput as exc:
            # Whoever asks for addresses is given these, whatever pool they are of.
            faults += [] if addresses else [(version, str(exc))]
    return replace(
        asks,
        ipv4_pools=pools.get(4, ()),
        ipv6_pools=pools.get(6, ()),
        pool_faults=tuple(faults),
    )


def _texts(annotations: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Read an annotation that holds a list of texts as JSON."""
    text = annotations.get(_ANNOTATION + name)
    if not text:
        return ()
    try:
        items = json.loads(str(text))
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(one, str) for one in items):
        raise InvalidInput(
            f'annotation {_ANNOTATION}{name}: write a list in JSON, such as ["one", "two"]'
        )
    return tuple(items)


def full_name(document: object) -> str | None:
    """Return "namespace/name" of an object; None where it has none."""
    metadata = _child(document, "metadata")
    namespace, name = metadata.get("namespace", "default"), metadata.get("name")
    return f"{namespace}/{name}" if _is_name(namespace) and _is_name(name) else None


def _is_name(text: object) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _is_ready(endpoint: Mapping[str, object]) -> bool:
    # Nothing said counts as ready, says the API (discovery.k8s.io/v1); one that ends never is,
    # unless its Service publishes addresses that are not ready.
    return _child(endpoint, "conditions").get("ready") is not False


def _is_ending(endpoint: Mapping[str, object]) -> bool:
    # As kube-proxy has it (KEP-1669): where no other is left it leads to those.
    said = _child(endpoint, "conditions")
    is_serving = said.get("serving") is True and said.get("terminating") is True
    return is_serving and not _is_ready(endpoint)


def _nodes(endpoints: Iterable[Mapping[str, object]]) -> frozenset[str]:
    """Return the nodes of endpoints; one without is on none, as of a pod that is elsewhere."""
    names = (one.get("nodeName") for one in endpoints)
    return frozenset(name for name in names if isinstance(name, str))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _child(value: object, name: str) -> Mapping[str, object]:
    return _mapping(_mapping(value).get(name))


def _items(mapping: Mapping[str, object], name: str) -> list[object]:
    value = mapping.get(name)
    return value if isinstance(value, list) else []


def _addresses(values: list[object]) -> tuple[IPAddress, ...]:
    return tuple(dict.fromkeys(_read(values)))


def _read(values: list[object]) -> Iterator[IPAddress]:
    for value in values:
        # A number would be an address, too; a zone belongs to one machine.
        if isinstance(value, str) and "%" not in value:
            with contextlib.suppress(ValueError):
                yield ip_address(value)
