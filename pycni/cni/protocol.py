"""The CNI protocol (SPEC.md 0.1.0 to 1.1.0): environment and standard input to a request.

Pure.  `parse` turns environment and standard input into a `Request`, or raises `CniError` with the
specification's code and a sentence that names the next step; nothing has had an effect by then.
"""

import json
import marshal
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pycni.cni.commands import NEEDS, SINCE, Command
from pycni.cni.errors import CniError, Code
from pycni.cni.netconf import IDENTIFIER, KUBERNETES_NAME, NetworkConfig, read_config
from pycni.cni.results import SUPPORTED_VERSIONS
from pycni.cni.wishes import Unwishable, Wishes, wished_addresses, wished_mac
from pycni.model.endpoints import HOST_VETH_PREFIX, Delegation, EndpointKey, host_veth_name

_OLDEST = SUPPORTED_VERSIONS[0]
MAX_IFNAME_LENGTH = 15
MAX_STDIN = 1 << 20
FIRST_INTERFACE = "eth0"

# Printable ASCII but for "/", ":" and "%", a pattern that makes the kernel number interfaces.
_INTERFACE = re.compile(r"[!-$&-.0-9;-~]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class CniArgs:
    """What CNI_ARGS said that we know; `host_veth` fixes the host interface's name."""

    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    host_veth: str = ""
    wishes: Wishes = field(default_factory=Wishes)


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the plugin, checked."""

    command: Command
    config: NetworkConfig
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: CniArgs = field(default_factory=CniArgs)
    delegation: Delegation | None = None
    """The IPAM plugin to run, where the configuration names another than ours."""
    key: EndpointKey = field(init=False)
    """CNI's identity of the attachment."""

    def __post_init__(self) -> None:
        key = EndpointKey(self.config.name, self.container_id, self.ifname)
        object.__setattr__(self, "key", key)

    @property
    def wishes(self) -> Wishes:
        """What the runtime asks for this attachment."""
        return self.config.wishes.or_else(self.args.wishes)

    @property
    def handle_id(self) -> str:
        """Return the IPAM handle; Calico's for eth0, with the interface's name for further ones."""
        suffix = "" if self.ifname == FIRST_INTERFACE else f".{self.ifname}"
        return f"{self.config.name}.{self.container_id}{suffix}"

    @property
    def host_veth(self) -> str:
        """Return the host interface's name; empty where another plugin makes the interface.

        For Kubernetes pods it follows from namespace and name, as Calico's does; a further
        interface needs a name of its own.  Otherwise the whole key is hashed: eleven characters of
        a container id collide, since cnitool's ids all begin with the same eight.
        """
        if self.config.is_ipam:
            return ""
        if self.args.host_veth:
            return self.args.host_veth
        if self.args.pod_name:
            seed = f"{self.args.pod_namespace}.{self.args.pod_name}"
            if self.ifname != FIRST_INTERFACE:
                seed += f"/{self.config.name}/{self.ifname}"
        else:
            seed = str(self.key)
        return host_veth_name(seed)


# --- parsing ------------------------------------------------------------------------------------


def parse(environment: Mapping[str, str], stdin: bytes) -> Request:
    """Check everything that the runtime gave us."""
    command = _command(environment)
    if command is Command.ADD and not _missing(environment, command):
        return _request(command, _config_of_add(stdin), environment, stdin)
    document = _document(stdin)
    version = _version(document, command)
    if command is Command.VERSION:
        return Request(command, NetworkConfig(name="", cni_version=version))
    if missing := _missing(environment, command):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"{command.value} needs {', '.join(missing)} in the environment: set it and call again",
        )
    config = _config_of(document, version, command)
    if not NEEDS[command]:
        return Request(command, config, delegation=_delegation(config, environment, stdin))
    return _request(command, config, environment, stdin)


@lru_cache(maxsize=16)
def _config_of_add(stdin: bytes) -> NetworkConfig:
    """Read what a runtime sends with each ADD to a network, pod after pod the same."""
    document = _document(stdin)
    version = _version(document, Command.ADD)
    return read_config(document, version=version, command=Command.ADD)


def _config_of(document: dict[str, Any], version: str, command: Command) -> NetworkConfig:
    """Read the configuration of other verbs; DELs differ from pod to pod by what is ignored."""
    if command is not Command.DEL:
        return read_config(document, version=version, command=command)
    document.pop("prevResult", None)
    return _config_of_delete(marshal.dumps(document), version)


@lru_cache(maxsize=16)
def _config_of_delete(document: bytes, version: str) -> NetworkConfig:
    content = marshal.loads(document)  # noqa: S302 - dumped by ourselves, as a key of the cache
    return read_config(content, version=version, command=Command.DEL)


def _missing(environment: Mapping[str, str], command: Command) -> list[str]:
    return [name for name in NEEDS[command] if not environment.get(name)]


def _request(
    command: Command, config: NetworkConfig, environment: Mapping[str, str], stdin: bytes
) -> Request:
    return Request(
        command,
        config,
        container_id=_container_id(environment["CNI_CONTAINERID"]),
        netns=environment.get("CNI_NETNS", ""),
        ifname=_ifname(environment["CNI_IFNAME"], "CNI_IFNAME"),
        args=_args(environment.get("CNI_ARGS", ""), command),
        delegation=_delegation(config, environment, stdin),
    )


def _delegation(
    config: NetworkConfig, environment: Mapping[str, str], stdin: bytes
) -> Delegation | None:
    if not config.ipam_plugin:
        return None
    try:
        # It was read as JSON already, in whatever encoding, but halves of surrogate pairs pass
        # there.
        text = stdin.decode(json.detect_encoding(stdin))
    except UnicodeDecodeError as exc:
        raise CniError(
            Code.UNDECODABLE, f"standard input can't be handed to {config.ipam_plugin}: {exc}"
        ) from exc
    return Delegation(
        plugin=config.ipam_plugin,
        path=environment.get("CNI_PATH", ""),
        args=environment.get("CNI_ARGS", ""),
        config=text,
    )


def _command(environment: Mapping[str, str]) -> Command:
    text = environment.get("CNI_COMMAND", "")
    try:
        return Command(text)
    except ValueError:
        known = ", ".join(c.value for c in Command)
        said = f"CNI_COMMAND={text!r} is unknown" if text else "CNI_COMMAND is not set"
        raise CniError(Code.INVALID_ENVIRONMENT, f"{said}: use one of {known}") from None


def _document(stdin: bytes) -> dict[str, Any]:
    if len(stdin) > MAX_STDIN:
        raise CniError(
            Code.UNDECODABLE, f"the network configuration is larger than {MAX_STDIN} bytes"
        )
    try:
        document = json.loads(stdin)
    except (ValueError, RecursionError) as exc:
        raise CniError(
            Code.UNDECODABLE, f"standard input is no JSON network configuration: {exc}"
        ) from exc
    if not isinstance(document, dict):
        raise CniError(Code.UNDECODABLE, "standard input must be a JSON object")
    return document


def _version(document: Mapping[str, Any], command: Command) -> str:
    version = document.get("cniVersion")
    if version is None or version == "":
        version = _OLDEST  # which knew no such key
    if command is Command.VERSION:
        return version if isinstance(version, str) else SUPPORTED_VERSIONS[-1]
    if version not in SUPPORTED_VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} is not supported: use one of {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = SINCE.get(command, (0, 0, 0))
    if tuple(map(int, str(version).split("."))) < since:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{command.value} does not exist in CNI {version}:"
            f" it came with {'.'.join(map(str, since))}",
        )
    return str(version)


def _container_id(text: str) -> str:
    if not IDENTIFIER.match(text):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID={text!r} must begin with a letter or digit and hold only"
            " letters, digits, '_', '.' and '-'",
        )
    return text


def _ifname(text: str, variable: str) -> str:
    if text in (".", "..") or not _INTERFACE.match(text):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"{variable}={text!r} is no interface name: use 1 to {MAX_IFNAME_LENGTH} ASCII"
            " characters without '/', ':', '%' or white space",
        )
    return text


def _args(text: str, command: Command) -> CniArgs:
    """Read CNI_ARGS; for a DEL what can't be read is as good as absent.

    A runtime repeats the arguments of an ADD that was refused, and for as long as the DEL fails.
    """
    try:
        return _read_args(text, has_wishes=command is Command.ADD)
    except CniError:
        if command is Command.DEL:
            return CniArgs()
        raise


def _read_args(text: str, *, has_wishes: bool) -> CniArgs:
    """Read "K=V;K=V"; an unknown key is an error unless IgnoreUnknown is set."""
    pairs: dict[str, str] = {}
    for item in filter(None, text.split(";")):
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise CniError(
                Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {item!r} is not of the form KEY=VALUE"
            )
        pairs[name] = value
    ignore = pairs.pop("IgnoreUnknown", "").lower() in ("1", "true", "yes", "t", "on")
    pairs.pop("K8S_POD_INFRA_CONTAINER_ID", None)
    uid = pairs.pop("K8S_POD_UID", "")
    namespace, name = _pod(pairs.pop("K8S_POD_NAMESPACE", ""), pairs.pop("K8S_POD_NAME", ""))
    wishes = pairs.pop("IP", ""), pairs.pop("MAC", "")
    args = CniArgs(
        pod_namespace=namespace,
        pod_name=name,
        pod_uid=uid,
        host_veth=_host_veth(pairs.pop("HOST_VETH", "")),
        wishes=_wishes(*wishes) if has_wishes else Wishes(),
    )
    if pairs and not ignore:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS: unknown key {', '.join(sorted(pairs))}: remove it or add IgnoreUnknown=1",
        )
    return args


def _pod(namespace: str, name: str) -> tuple[str, str]:
    """Read which pod of Kubernetes this is; two empty strings: none.

    One alone names no pod, as in Calico: podman gives its container's name as K8S_POD_NAME without
    a namespace, and that name keeps neither to Kubernetes' rules nor to being the only one.
    """
    if not (namespace and name):
        return "", ""
    return (
        _kubernetes_name(namespace, "K8S_POD_NAMESPACE"),
        _kubernetes_name(name, "K8S_POD_NAME"),
    )


def _kubernetes_name(text: str, key: str) -> str:
    if not KUBERNETES_NAME.match(text):
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {key}={text!r} is no name of Kubernetes"
        )
    return text


def _wishes(addresses: str, mac: str) -> Wishes:
    try:
        return Wishes(
            addresses=wished_addresses([text for text in addresses.split(",") if text]),
            mac=wished_mac(mac),
        )
    except Unwishable as exc:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {exc}") from None


def _host_veth(text: str) -> str:
    if text and not (_INTERFACE.match(text) and text.startswith(HOST_VETH_PREFIX)):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS: HOST_VETH={text!r} must be an interface name that begins with 'cali'",
        )
    return text


def version_of(stdin: bytes) -> str:
    """Return the version to answer in, even to a request that can't be parsed."""
    try:
        version = json.loads(stdin).get("cniVersion") or _OLDEST
    except (ValueError, AttributeError, RecursionError):
        version = None
    return version if version in SUPPORTED_VERSIONS else SUPPORTED_VERSIONS[-1]
