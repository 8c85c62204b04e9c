"""The network configuration that a runtime gives on standard input, checked.

Pure.  Keys are Calico's where Calico has them; a key of a known name must have the right type, an
unknown one is ignored, as the specification wants it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, TypeVar

from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code
from pycni.cni.results import NoResult, read_dns, read_result, read_routes
from pycni.cni.wishes import Wishes, read_wishes
from pycni.model.endpoints import Subnet

T = TypeVar("T")
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
KUBERNETES = "kubernetes"
"""What stands for the cluster's objects in place of a datastore's file."""
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
OWN_TYPE = "pycni"
OWN_IPAM = "pycni-ipam"
RUNTIMES_SUFFIXES = (".conflist", ".conf", ".json")
"""How files end that a runtime takes for configurations, in the order in which libcni looks."""
_OF_IPAM = (
    "type",
    "ipv4_pools",
    "ipv6_pools",
    "assign_ipv4",
    "assign_ipv6",
    "subnet",
    "routes",
    "dns",
)
# JSON can spell half of a surrogate pair, which no file name holds.
_UNNAMEABLE = re.compile("[\ud800-\udfff\x00]")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The network configuration, checked; key names are Calico's where Calico has them."""

    name: str
    cni_version: str
    nodename: str = ""
    mtu: int = 0
    agent_timeout_s: int = 30
    run_dir: str = "/run/pycni"
    state_dir: str = "/var/lib/pycni"
    datastore: str = ""
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    assign_ipv4: bool = True
    assign_ipv6: bool = False
    log_level: str = "info"
    allow_ip_forwarding: bool = False
    has_default_route: bool = True
    dns: Mapping[str, Any] = field(default_factory=dict)
    wishes: Wishes = field(default_factory=Wishes)
    prev_result: Mapping[str, Any] | None = None
    """What the plugins before us achieved, in the spelling of 1.1.0; read for ADD and CHECK."""
    valid_attachments: frozenset[tuple[str, str]] | None = None
    is_ipam: bool = False
    """Whether another main plugin asks for addresses, and makes the interface itself."""
    subnet: Subnet = Subnet.NONE
    """What its addresses' prefix lengths come from."""
    routes: tuple[Mapping[str, Any], ...] = ()
    ipam_plugin: str = ""
    """The IPAM plugin to run for addresses; empty: they are of our own blocks."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions of which a pod gets an address, unless it asks for particular ones."""
        wanted = ((4, self.assign_ipv4), (6, self.assign_ipv6))
        return tuple(version for version, is_wanted in wanted if is_wanted)


def _bad(text: str) -> CniError:
    return CniError(Code.INVALID_CONFIGURATION, f"network configuration: {text}")


def _unsupported(text: str) -> CniError:
    return CniError(Code.UNSUPPORTED_FIELD, f"network configuration: {text}")


def _typed(document: Mapping[str, Any], key: str, kind: type[T], default: T) -> T:
    value = document.get(key, default)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _bad(f"{key!r} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def read_config(document: Mapping[str, Any], *, version: str, command: Command) -> NetworkConfig:
    """Check a configuration; some verbs need a key of their own."""
    name = document.get("name")
    if not isinstance(name, str) or not IDENTIFIER.match(name):
        raise _bad("'name' must be a string of letters, digits, '_', '.' and '-'")
    ipam, plugin = _ipam(document)
    if command is Command.ADD:
        _check_families(ipam)
        if not _is_for_other_plugin(document, ipam):
            _check_features(document)
    assign_ipv4 = _switch(ipam, "assign_ipv4", default=True)
    assign_ipv6 = _switch(ipam, "assign_ipv6", default=False)
    if not (assign_ipv4 or assign_ipv6):
        raise _bad("ipam.assign_ipv4 and ipam.assign_ipv6 are both off: a pod needs an address")
    run_dir = _absolute(_typed(document, "run_dir", str, "/run/pycni"), "run_dir")
    state_dir = _absolute(_typed(document, "state_dir", str, "/var/lib/pycni"), "state_dir")
    config = NetworkConfig(
        name=name,
        cni_version=version,
        nodename=_nodename(document),
        agent_timeout_s=_agent_timeout(document),
        run_dir=run_dir,
        state_dir=state_dir,
        datastore=_datastore(document, f"{state_dir}/pycni.db"),
        ipv4_pools=_pools(ipam, "ipv4_pools"),
        ipv6_pools=_pools(ipam, "ipv6_pools"),
        assign_ipv4=assign_ipv4,
        assign_ipv6=assign_ipv6,
        log_level=_log_level(document),
        wishes=read_wishes(document, bad=_bad) if command is Command.ADD else Wishes(),
        prev_result=_previous(document, version, command),
        valid_attachments=_attachments(document) if command is Command.GC else None,
        ipam_plugin=plugin,
    )
    if _is_for_other_plugin(document, ipam):
        return _of_ipam(config, ipam, command)
    return _of_interface(config, document)


def _of_interface(config: NetworkConfig, document: Mapping[str, Any]) -> NetworkConfig:
    """Read what is about the interface that we make."""
    settings = _typed(document, "container_settings", dict, {})
    return replace(
        config,
        mtu=_mtu(document),
        allow_ip_forwarding=_typed(settings, "allow_ip_forwarding", bool, False),
        has_default_route=_typed(document, "isDefaultGateway", bool, True),
        # Read once for many pods, so that none may write to it.
        dns=MappingProxyType(read_dns(document.get("dns"), bad=_bad)),
    )


def _is_for_other_plugin(document: Mapping[str, Any], ipam: Mapping[str, Any]) -> bool:
    """Tell whether the main plugin is another one, which runs us as `pycni-ipam`.

    The relay does not say by which name it was called: the configuration does, because a main
    plugin hands on its own whole, and `ipam.type` is how it found us.
    """
    main = _typed(document, "type", str, OWN_TYPE)
    return main != OWN_TYPE and ipam.get("type") == OWN_IPAM


def _of_ipam(config: NetworkConfig, ipam: Mapping[str, Any], command: Command) -> NetworkConfig:
    """Read what is about addresses for another plugin; the keys beside `ipam` are that one's."""
    unknown = sorted(ipam.keys() - set(_OF_IPAM))
    if unknown and command is Command.ADD:  # what was made before a key was, can be deleted
        raise _unsupported(f"ipam.{unknown[0]:.60} is unknown: use {', '.join(_OF_IPAM)}")
    return replace(
        config,
        is_ipam=True,
        subnet=_subnet(ipam),
        routes=read_routes(_typed(ipam, "routes", list, []), bad=_bad),
        dns=MappingProxyType(read_dns(ipam.get("dns"), bad=_bad)),
    )


def _previous(
    document: Mapping[str, Any], version: str, command: Command
) -> Mapping[str, Any] | None:
    # What a DEL is told may be wrong without harm: it has to succeed all the same.
    if command not in (Command.ADD, Command.CHECK):
        return None
    said = document.get("prevResult")
    if said is None:
        if command is Command.CHECK:
            raise _bad("CHECK needs 'prevResult', the result of the ADD")
        return None
    if not isinstance(said, dict):
        raise _bad("'prevResult' must be an object")
    try:
        return read_result(said, version=version)
    except NoResult as exc:
        raise _bad(f"prevResult: {exc}") from None


def _nodename(document: Mapping[str, Any]) -> str:
    name: str = _typed(document, "nodename", str, "")
    if name and not KUBERNETES_NAME.match(name):
        raise _bad(f"'nodename' {name!r} is no node name (lower-case letters, digits, '-', '.')")
    return name


def _datastore(document: Mapping[str, Any], default: str) -> str:
    """Return the embedded datastore's file, or "kubernetes"; Calico's key says which of both."""
    kind: str = _typed(document, "datastore_type", str, "")
    place: str = _typed(document, "datastore", str, KUBERNETES if kind == KUBERNETES else "")
    if kind not in ("", "sqlite", KUBERNETES):
        raise _unsupported(
            f"datastore_type {kind!r} is not supported: use 'sqlite' or 'kubernetes'"
        )
    if kind and (place == KUBERNETES) != (kind == KUBERNETES):
        raise _bad(f"'datastore' {place!r} and 'datastore_type' {kind!r} contradict each other")
    return place if place == KUBERNETES else _absolute(place or default, "datastore")


def _ipam(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return what is said of our own addresses, and another IPAM plugin where one is named."""
    ipam: Mapping[str, Any] = _typed(document, "ipam", dict, {})
    kind: str = _typed(ipam, "type", str, OWN_IPAM)
    if kind == OWN_IPAM:
        return ipam, ""
    # Ours would call itself for ever.
    if kind == OWN_TYPE or not IDENTIFIER.match(kind):
        raise _unsupported(
            f"ipam.type {kind!r:.60} is no IPAM plugin: use {OWN_IPAM!r}, or the name of one in"
            " CNI_PATH, such as 'host-local'"
        )
    return {}, kind


def _subnet(ipam: Mapping[str, Any]) -> Subnet:
    text = _typed(ipam, "subnet", str, Subnet.NONE.value)
    try:
        return Subnet(text)
    except ValueError:
        known = ", ".join(one.value for one in Subnet)
        raise _bad(f"ipam.subnet {text!r:.60} is unknown: use {known}") from None


def _agent_timeout(document: Mapping[str, Any]) -> int:
    """Check what the relay has read itself: how long it waited for the agent."""
    seconds: int = _typed(document, "agent_timeout", int, 30)
    if not 1 <= seconds <= 9999:
        raise _bad(f"'agent_timeout' {seconds} is outside 1–9999 seconds")
    return seconds


def _mtu(document: Mapping[str, Any]) -> int:
    mtu: int = _typed(document, "mtu", int, 0)
    if mtu and not 68 <= mtu <= 65535:  # 68: every IPv4 module must forward it (RFC 791, 3.2)
        raise _bad(f"'mtu' {mtu} is outside 68–65535: leave it out to derive it from the node")
    return mtu


def _log_level(document: Mapping[str, Any]) -> str:
    level: str = _typed(document, "log_level", str, "info").lower()
    if level not in ("debug", "info", "warning", "error", "none"):
        raise _bad(f"'log_level' {level!r} is unknown: use debug, info, warning, error or none")
    return level


def _absolute(path: str, key: str) -> str:
    if not path.startswith("/") or _UNNAMEABLE.search(path):
        raise _bad(f"{key!r} must be an absolute path, not {path!r}")
    return path


def _pools(ipam: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Read a list of pools; each is a CIDR or the name of a pool."""
    pools: list[str] = []
    for item in _typed(ipam, key, list, []):
        if not isinstance(item, str) or not item:
            raise _bad(f"ipam.{key} must hold strings: pool names or CIDRs")
        try:
            pools.append(spelled_pool(item)[0])
        except ValueError as exc:
            raise _bad(f"ipam.{key}: {item!r} is no CIDR: {exc}") from exc
    return tuple(pools)


def spelled_pool(text: str) -> tuple[str, int | None]:
    """Return a pool's name, or its CIDR as that is usually spelled, and the CIDR's IP version.

    Raises `ValueError` for what is no CIDR.
    """
    if "/" not in text:
        return text, None
    if "%" in text:  # a zone, which `ipaddress` takes
        raise ValueError(f"{text!r:.60} does not appear to be an IPv4 or IPv6 network")
    cidr = ip_network(text)
    return str(cidr), cidr.version


def _check_families(ipam: Mapping[str, Any]) -> None:
    """Refuse CIDRs of the other family; of pools that go by their names the allocator does.

    Of an ADD only: what an older release made of it has to go, too.
    """
    for version in (4, 6):
        for text in _pools(ipam, f"ipv{version}_pools"):
            other = spelled_pool(text)[1]
            if other not in (None, version):
                raise _bad(
                    f"ipam.ipv{version}_pools: {text} is IPv{other}: name it in ipv{other}_pools"
                )


def _check_features(document: Mapping[str, Any]) -> None:
    """Refuse what Calico's plugin has and ours has not, where a pod would come out differently."""
    plane = _typed(document, "dataplane_options", dict, {}).get("type", "linux")
    if plane != "linux":
        raise _bad(
            f"'dataplane_options' asks for type {plane!r}: there is 'linux' only, leave it out"
        )
    for feature, is_wanted in _typed(document, "feature_control", dict, {}).items():
        if is_wanted:
            raise _bad(f"'feature_control' asks for {feature!r}, which pycni lacks: leave it out")
    if gates := _typed(document, "readiness_gates", list, []):
        names = ", ".join(map(str, gates))
        raise _bad(f"'readiness_gates' asks to wait for {names}, which pycni can't: leave it out")


def _switch(ipam: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """Read a switch that Calico spells as the string "true" or "false"."""
    value = ipam.get(key, default)
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _bad(f'ipam.{key} must be "true" or "false", not {value!r}')


def _attachments(document: Mapping[str, Any]) -> frozenset[tuple[str, str]] | None:
    """Read the attachments that GC must keep (SPEC.md 1.1.0, section "GC"); None without a list.

    The specification requires the list, but `cnitool gc` gives none.
    """
    key = "cni.dev/valid-attachments"
    if key not in document:
        key = "cni.dev/attachments"  # its name before 1.1.0 was final; libcni sends both
    if key not in document:
        return None
    items = document[key]
    if items is None:  # Go's empty slice
        return frozenset()
    if not isinstance(items, list):
        raise _bad("'cni.dev/valid-attachments' must be a list (empty: nothing is valid)")
    keep = set()
    for item in items:
        if not isinstance(item, dict):
            raise _bad("'cni.dev/valid-attachments' must hold objects")
        container, ifname = item.get("containerID"), item.get("ifname")
        if not isinstance(container, str) or not isinstance(ifname, str):
            raise _bad("each of 'cni.dev/valid-attachments' needs 'containerID' and 'ifname'")
        keep.add((container, ifname))
    return frozenset(keep)
