"""The agent's configuration file: YAML, every key optional, unknown ones refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any

from pycni.errors import InvalidInput

DEFAULT_CONFIG = Path("/etc/pycni/agent.yaml")


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

    `node` "" means the host's name.  `node_address` ("10.10.7.20/20") and `node_address6`
    ("fd00:10::20/64") state this node's underlay addresses; "" leaves one to the datastore's Node
    object.  `bgp_user` is who ExaBGP runs as ("" is
    the agent's own user).  `exabgp_python` an interpreter that can import exabgp.  `tunnel_mtu`
    and `pod_mtu` 0 mean: derived from the underlay.  `metrics_port` 0 switches HTTP off.
    """

    node: str = ""
    node_address: str = ""
    node_address6: str = ""
    run_dir: str = "/run/pycni"
    state_dir: str = "/var/lib/pycni"
    datastore: str = ""
    route_protocol: int | str = "bird"
    tunnel_name: str = "tunl0"
    tunnel_mtu: int = 0
    pod_mtu: int = 0
    hold_time_s: int = 90
    restart_time_s: int = 120
    bgp_user: str = ""
    exabgp_python: str = ""
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 9091
    log_level: str = "info"
    refresh_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("run_dir", "state_dir"):
            if not str(getattr(self, name)).startswith("/"):
                raise InvalidInput(f"{name} must be an absolute path")
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise InvalidInput(f"{name} {value} is outside {lowest} to {highest}")
        _check_address("node_address", self.node_address, example="10.10.7.20/20")
        _check_address("node_address6", self.node_address6, example="fd00:10::20/64")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidInput(f"log_level {self.log_level!r}: use debug, info, warning or error")

    @property
    def own_addresses(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        """Return the underlay addresses that are stated, at most one of each IP version."""
        return tuple(ip_interface(a) for a in (self.node_address, self.node_address6) if a)

    @property
    def datastore_path(self) -> Path:
        """Return the embedded datastore's file."""
        return Path(self.datastore or f"{self.state_dir}/pycni.db")


def _check_address(key: str, text: str, *, example: str) -> None:
    """Refuse what is no address of the example's IP version that other nodes can reach."""
    if not text:
        return
    try:
        address = ip_interface(text)
    except ValueError as exc:
        raise InvalidInput(f"{key} {text!r}: {exc}; say it as in {example}") from exc
    version = ip_interface(example).version
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
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise InvalidInput(f"{source}: {key} must be of type {kind.__name__}, not {value!r}")


def load_config(path: Path) -> AgentConfig:
    """Read a configuration file; an absent default file means all defaults."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path == DEFAULT_CONFIG:
            return AgentConfig()
        raise InvalidInput(f"cannot read {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"cannot read {path}: {exc}") from exc
    try:
        return parse_config(yaml.safe_load(text), source=str(path))
    except yaml.YAMLError as exc:
        raise InvalidInput(f"{path} is no YAML: {exc}") from exc
