"""The agent's configuration file: YAML, every key optional, unknown ones refused by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Any, TypeVar

from pycni.autodetection import Kind, Method, parse_method
from pycni.errors import InvalidInput

DEFAULT_CONFIG = Path("/etc/pycni/agent.yaml")
T = TypeVar("T", bound=IPv4Interface | IPv6Interface | IPv4Network | IPv6Network)
KUBERNETES = "kubernetes"
"""What the setting of the datastore says in place of a file."""


METHODS = (
    ("ip_autodetection_method", "IP_AUTODETECTION_METHOD", "node_address", 4),
    ("ip6_autodetection_method", "IP6_AUTODETECTION_METHOD", "node_address6", 6),
)
"""A setting, the variable of the environment that stands in for it, what it stands in for itself,
and the IP version that all of these are about."""

_RANGES = (
    ("hold_time_s", 3, 65535),  # RFC 4271, 4.2
    ("restart_time_s", 1, 4095),  # 12 bits: RFC 4724, 3
    ("tunnel_mtu", 0, 65535),
    ("pod_mtu", 0, 65535),
    ("metrics_port", 0, 65535),
    ("refresh_s", 1, 86400),
)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What an agent is told at start.

    `node` "" means `NODE_NAME` of the environment, or the host's name.  `node_address`
    ("10.10.7.20/20") and `node_address6` ("fd00:10::20/64") state this node's underlay addresses;
    "" leaves one to `ip_autodetection_method` and `ip6_autodetection_method`, which say how to find
    it among the host's ("first-found"), or to the datastore's Node object.  `pool` and `pool6` are
    the first pools of a cluster that has none; "" leaves one to kubeadm's `podSubnet`.  `bgp_user`
    is who ExaBGP runs as ("" is the agent's own user).  `exabgp_python` an interpreter that can
    import exabgp.
    `extended_next_hop` has sessions with routers over IPv6 carry IPv4 prefixes, too (RFC 8950).
    `tunnel_mtu` and `pod_mtu` 0 mean: derived from the underlay.  `metrics_port` 0 switches HTTP
    off.  `services_file` holds Services and EndpointSlices where there is no cluster to ask.
    `cni_conflist` is where the agent writes the network's configuration once it serves,
    after `cni_template`; "" leaves that to an installation.
    """

    node: str = ""
    node_address: str = ""
    node_address6: str = ""
    ip_autodetection_method: str = ""
    ip6_autodetection_method: str = ""
    run_dir: str = "/run/pycni"
    state_dir: str = "/var/lib/pycni"
    datastore: str = ""
    kubeconfig: str = ""
    pool: str = ""
    pool6: str = ""
    route_protocol: int | str = "bird"
    tunnel_name: str = "tunl0"
    tunnel_mtu: int = 0
    pod_mtu: int = 0
    hold_time_s: int = 90
    restart_time_s: int = 120
    extended_next_hop: bool = False
    bgp_user: str = ""
    exabgp_python: str = ""
    services_file: str = ""
    cni_conflist: str = ""
    cni_template: str = ""
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 9091
    log_level: str = "info"
    refresh_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("run_dir", "state_dir"):
            if not str(getattr(self, name)).startswith("/"):
                raise InvalidInput(f"{name} must be an absolute path")
        self._check_services_file()
        for name in ("kubeconfig", "pool", "pool6"):
            if getattr(self, name) and not self.is_in_kubernetes:
                raise InvalidInput(f"{name} is used with datastore: kubernetes only; remove it")
        if self.kubeconfig and not self.kubeconfig.startswith("/"):
            raise InvalidInput("kubeconfig must be an absolute path")
        self._check_network_files()
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise InvalidInput(f"{name} {value} is outside {lowest} to {highest}")
        _check_address("node_address", self.node_address, example="10.10.7.20/20")
        _check_address("node_address6", self.node_address6, example="fd00:10::20/64")
        self._check_methods()
        _check_pool("pool", self.pool, example="192.168.0.0/16", last=26)
        _check_pool("pool6", self.pool6, example="fd00:192:168::/112", last=122)
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidInput(f"log_level {self.log_level!r}: use debug, info, warning or error")

    def _check_methods(self) -> None:
        for key, _, address, version in METHODS:
            method = self.autodetection.get(version)
            if method is not None and getattr(self, address):
                raise InvalidInput(f"{address} and {key} are both set: remove one of them")
            is_kubelets = method is not None and method.kind is Kind.INTERNAL_IP
            if is_kubelets and not self.is_in_kubernetes:
                raise InvalidInput(f"{method} is for datastore: kubernetes; say another method")

    def _check_services_file(self) -> None:
        if self.services_file and self.is_in_kubernetes:
            raise InvalidInput(
                "services_file: with datastore: kubernetes its Services are read: remove it"
            )
        if self.services_file and not self.services_file.startswith("/"):
            raise InvalidInput("services_file must be an absolute path")

    def _check_network_files(self) -> None:
        for name, other in (("cni_conflist", "cni_template"), ("cni_template", "cni_conflist")):
            path = getattr(self, name)
            if path and not path.startswith("/"):
                raise InvalidInput(f"{name} must be an absolute path")
            if path and not getattr(self, other):
                raise InvalidInput(f"{name} is set, but {other} is not: set both, or neither")

        if self.cni_conflist and not self.cni_conflist.endswith(".conflist"):
            raise InvalidInput("cni_conflist must end in .conflist: runtimes read no other lists")

    @property
    def own_addresses(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """Return the underlay addresses that are stated, at most one of each IP version."""
        return tuple(ip_interface(a) for a in (self.node_address, self.node_address6) if a)

    @property
    def autodetection(self) -> dict[int, Method]:
        """Return by IP version how an address is found; nothing where none is to be."""
        return {
            version: parse_method(text, setting=key, version=version)
            for key, _, _, version in METHODS
            if (text := getattr(self, key))
        }

    @property
    def first_pools(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the first pools that are stated, at most one of each IP version."""
        return tuple(ip_network(text) for text in (self.pool, self.pool6) if text)

    @property
    def datastore_place(self) -> str:
        """Return the embedded datastore's file, or "kubernetes"."""
        return self.datastore or f"{self.state_dir}/pycni.db"

    @property
    def is_in_kubernetes(self) -> bool:
        """Tell whether the cluster's objects are the datastore."""
        return self.datastore == KUBERNETES


def _parsed(parse: Callable[[str], T], key: str, text: str, *, example: str) -> tuple[T, int]:
    """Return what a setting says, and the IP version that the example has."""
    try:
        said = parse(text)
    except ValueError as exc:
        raise InvalidInput(f"{key} {text!r}: {exc}; say it as in {example}") from exc
    return said, parse(example).version


def _check_address(key: str, text: str, *, example: str) -> None:
    """Refuse what is no address of the example's IP version that other nodes can reach."""
    if not text:
        return
    address, version = _parsed(ip_interface, key, text, example=example)
    if address.version != version or "/" not in text:
        raise InvalidInput(
            f"{key} {text!r} must be IPv{version} with the subnet's prefix length,"
            f" such as {example}"
        )
    is_local = address.is_link_local and version == 6  # the IPv4 ones may be an underlay
    if is_local or address.is_loopback or address.is_multicast or address.is_unspecified:
        raise InvalidInput(
            f"{key} {text!r} is no address by which other nodes reach this one:"
            f" say one such as {example}"
        )


def _check_pool(key: str, text: str, *, example: str, last: int) -> None:
    """Refuse what is no network of the example's IP version that holds a block of a /`last`."""
    if not text:
        return
    network, version = _parsed(ip_network, key, text, example=example)
    if network.version != version or network.prefixlen > last:
        raise InvalidInput(
            f"{key} {text!r} must be an IPv{version} network of a /{last} or larger, such as"
            f" {example}"
        )


def with_environment(config: AgentConfig, environment: Mapping[str, str]) -> AgentConfig:
    """Add the methods that the environment says, where the file says neither one nor an address."""
    for key, variable, address, version in METHODS:
        text = environment.get(variable, "")
        if text and not getattr(config, key) and not getattr(config, address):
            change: dict[str, Any] = {
                key: parse_method(text, setting=variable, version=version).text
            }
            try:
                config = replace(config, **change)
            except InvalidInput as exc:
                raise InvalidInput(f"{variable} of the environment: {exc}") from exc
    return config


def parse_config(document: object, *, source: str) -> AgentConfig:
    """Check a configuration that was read from `source`."""
    if document is None:
        return AgentConfig()
    if not isinstance(document, dict):
        raise InvalidInput(f"{source}: expected a mapping of keys")
    kinds: Mapping[str, Any] = {f.name: type(f.default) for f in fields(AgentConfig)}
    for key, value in document.items():
        if key not in kinds:
            raise InvalidInput(f"{source}: unknown key {key!r}; known are {', '.join(kinds)}")
        _check_type(source, key, value, kinds[key])
    return AgentConfig(**document)


def _check_type(source: str, key: str, value: object, kind: type) -> None:
    allowed: tuple[type, ...] = (kind,)
    if kind is float or key == "route_protocol":
        allowed = (kind, int)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise InvalidInput(f"{source}: {key} must be of type {kind.__name__}, not {value!r}")


def load_config(path: Path) -> AgentConfig:
    """Read a configuration file; an absent default file means all defaults."""
    from pycni.yamltext import read_documents

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path == DEFAULT_CONFIG:
            return AgentConfig()
        raise InvalidInput(f"cannot read {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"cannot read {path}: {exc}") from exc
    documents = read_documents(text, source=str(path))
    if len(documents) > 1:
        raise InvalidInput(f"{path}: settings are one document, and here are {len(documents)}")
    return parse_config(documents[0] if documents else None, source=str(path))
