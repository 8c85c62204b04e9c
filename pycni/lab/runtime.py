"""A minimal CNI runtime, for machines without cnitool; by the specification's section 4 and 5.

    python -m pycni.lab.runtime add|check|del|gc|status NETWORK [NETNS]

It takes cnitool's own variables (CNI_PATH, NETCONFPATH, CNI_ARGS, CNI_IFNAME, CAP_ARGS), makes
container ids by cnitool's rule and keeps results in libcni's form and place, so that either can
delete what the other added.  Only `gc` differs: cnitool takes every attachment for stale, this one
those whose network namespace is gone.  Imports the standard library alone, to start fast.
"""

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycni.cni.netconf import RUNTIMES_SUFFIXES
from pycni.errors import InvalidInput, NotFound, PycniError

CACHE = Path("/var/lib/cni")
CACHE_KIND = "cniCacheV1"
DEFAULT_CONFIGURATION = "/etc/cni/net.d"


@dataclass(frozen=True, slots=True)
class NetworkList:
    """A network configuration list; `text` is the file's content."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    text: str
    has_check: bool = True
    has_gc: bool = True

    def is_at_least(self, *version: int) -> bool:
        """Say whether the list's cniVersion is that one or a later one."""
        return tuple(map(int, self.version.split("."))) >= version


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is attached: CNI's identity, and the arguments that go with it."""

    container_id: str
    netns: str
    ifname: str = "eth0"
    arguments: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict)


class PluginFailed(PycniError):
    """A plugin answered with an error."""


# --- configuration ------------------------------------------------------------------------------


def container_id(netns: str) -> str:
    """Return the id that cnitool gives to a network namespace's path."""
    return f"cnitool-{hashlib.sha512(netns.encode()).digest()[:10].hex()}"


def parse_list(text: str) -> NetworkList:
    """Read a configuration list, or a single plugin's configuration as a list of one."""
    document = json.loads(text)
    plugins = document.get("plugins", [document])
    return NetworkList(
        name=document["name"],
        version=document.get("cniVersion", "0.1.0"),
        plugins=tuple(plugins),
        text=text,
        has_check=not document.get("disableCheck", False),
        has_gc=not document.get("disableGC", False),
    )


def load_list(directory: Path, *, name: str) -> NetworkList:
    """Return the first configuration of that name, lists before single ones, by file name."""
    for suffix in RUNTIMES_SUFFIXES:
        for path in sorted(directory.glob(f"*{suffix}")):
            try:
                found = parse_list(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, KeyError, TypeError) as exc:
                raise InvalidInput(f"{path} is no network configuration: {exc!r}") from exc
            if found.name == name:
                return found
    raise NotFound(f"no network {name!r} in {directory}: set NETCONFPATH, or write a conflist")


def plugin_input(
    networks: NetworkList,
    plugin: Mapping[str, Any],
    *,
    previous: Mapping[str, Any] | None = None,
    capabilities: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Derive what a plugin gets on standard input ("Deriving request configuration")."""
    document = dict(plugin) | {"name": networks.name, "cniVersion": networks.version}
    supported = plugin.get("capabilities") or {}
    runtime_config = {k: v for k, v in (capabilities or {}).items() if supported.get(k)}
    if runtime_config:
        document["runtimeConfig"] = runtime_config
    if previous is not None:
        document["prevResult"] = previous
    document.pop("capabilities", None)
    return document | dict(extra or {})


# --- the cache of results -----------------------------------------------------------------------


class Cache:
    """Results of ADD, one file for each attachment."""

    def __init__(self, directory: Path = CACHE) -> None:
        self._directory = directory / "results"

    def _path(self, network: str, attachment: Attachment) -> Path:
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        return self._directory / name

    def store(
        self, networks: NetworkList, attachment: Attachment, *, result: Mapping[str, Any]
    ) -> None:
        """Keep a result for CHECK, DEL and GC."""
        pairs = [item.partition("=") for item in attachment.arguments.split(";") if item]
        document = {
            "kind": CACHE_KIND,
            "containerId": attachment.container_id,
            "config": base64.b64encode(networks.text.encode()).decode(),
            "ifName": attachment.ifname,
            "networkName": networks.name,
            "netns": attachment.netns,
            "cniArgs": [[key, value] for key, _, value in pairs],
            "capabilityArgs": dict(attachment.capabilities),
            "result": result,
        }
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(networks.name, attachment)
        path.write_text(json.dumps(document), encoding="utf-8")
        path.chmod(0o600)

    def result(self, network: str, attachment: Attachment) -> dict[str, Any] | None:
        """Return the kept result; None: there is none."""
        document = _read(self._path(network, attachment))
        return document.get("result") if document is not None else None

    def forget(self, network: str, attachment: Attachment) -> None:
        """Drop a result."""
        self._path(network, attachment).unlink(missing_ok=True)

    def attachments(self, network: str) -> list[tuple[NetworkList, Attachment]]:
        """Return all attachments of a network, each with the configuration of its ADD."""
        found = []
        for path in sorted(self._directory.glob("*")):
            document = _read(path)
            if document is None or document.get("networkName") != network:
                continue
            attachment = Attachment(
                container_id=document["containerId"],
                netns=document.get("netns", ""),
                ifname=document["ifName"],
                arguments=";".join("=".join(pair) for pair in document.get("cniArgs") or []),
                capabilities=document.get("capabilityArgs") or {},
            )
            text = base64.b64decode(document["config"]).decode()
            found.append((parse_list(text), attachment))
        return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("kind") != CACHE_KIND:
        return None
    return document


# --- verbs --------------------------------------------------------------------------------------


class Runtime:
    """Does CNI's verbs with the plugins of a search path."""

    def __init__(self, search_path: str, *, cache: Cache) -> None:
        self._search_path = search_path
        self._cache = cache

    def add(self, networks: NetworkList, attachment: Attachment) -> dict[str, Any]:
        """Run all plugins in order, each with the result of the one before."""
        result: dict[str, Any] | None = None
        for plugin in networks.plugins:
            document = plugin_input(
                networks, plugin, previous=result, capabilities=attachment.capabilities
            )
            answer = self._execute("ADD", plugin, document, attachment)
            result = json.loads(answer)
        self._cache.store(networks, attachment, result=result or {})
        return result or {}

    def check(self, networks: NetworkList, attachment: Attachment) -> None:
        """Run all plugins in order, each with the final result of ADD."""
        if not networks.is_at_least(0, 4, 0):
            raise InvalidInput(f"CHECK does not exist in CNI {networks.version}")
        if not networks.has_check:
            return
        result = self._cache.result(networks.name, attachment)
        if result is None:
            raise NotFound(f"{attachment.netns} is not attached to {networks.name}: add it first")
        for plugin in networks.plugins:
            document = plugin_input(
                networks, plugin, previous=result, capabilities=attachment.capabilities
            )
            self._execute("CHECK", plugin, document, attachment)

    def delete(self, networks: NetworkList, attachment: Attachment) -> None:
        """Run all plugins in reverse order; what was never added is deleted as well."""
        result = None
        if networks.is_at_least(0, 4, 0):
            result = self._cache.result(networks.name, attachment)
        for plugin in reversed(networks.plugins):
            document = plugin_input(
                networks, plugin, previous=result, capabilities=attachment.capabilities
            )
            self._execute("DEL", plugin, document, attachment)
        self._cache.forget(networks.name, attachment)

    def collect_garbage(self, networks: NetworkList) -> None:
        """Delete what has lost its namespace, then name to every plugin what is left."""
        if not networks.has_gc:
            return
        errors: list[PycniError] = []
        valid = []
        for configuration, attachment in self._cache.attachments(networks.name):
            if Path(attachment.netns).exists():
                valid.append({"containerID": attachment.container_id, "ifname": attachment.ifname})
                continue
            try:
                self.delete(configuration, attachment)
            except PycniError as exc:
                errors.append(exc)
        # The second key is the specification's former name for the first.
        extra = {"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}
        try:
            self._each("GC", networks, extra)
        except PycniError as exc:
            errors.append(exc)
        if errors:
            raise PluginFailed("; ".join(map(str, errors)))

    def status(self, networks: NetworkList) -> None:
        """Ask every plugin whether it could serve an ADD."""
        self._each("STATUS", networks, {})

    def _each(self, command: str, networks: NetworkList, extra: Mapping[str, Any]) -> None:
        if not networks.is_at_least(1, 1, 0):
            return
        for plugin in networks.plugins:
            document = plugin_input(networks, plugin, extra=extra)
            self._execute(command, plugin, document, Attachment("", "", ""))

    def _find(self, kind: str) -> str:
        if "/" not in kind:
            for directory in self._search_path.split(":"):
                path = os.path.join(directory, kind)  # noqa: PTH118 - no Path: started per pod
                if os.access(path, os.X_OK):
                    return path
        raise NotFound(f"no plugin {kind!r} in CNI_PATH={self._search_path}")

    def _execute(
        self,
        command: str,
        plugin: Mapping[str, Any],
        document: Mapping[str, Any],
        attachment: Attachment,
    ) -> bytes:
        kind = str(plugin.get("type", ""))
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": attachment.netns,
            "CNI_IFNAME": attachment.ifname,
            "CNI_ARGS": attachment.arguments,
            "CNI_PATH": self._search_path,
        }
        ran = subprocess.run(
            [self._find(kind)],
            input=json.dumps(document).encode(),
            stdout=subprocess.PIPE,
            env=env,
            check=False,
        )
        if ran.returncode != 0:
            raise PluginFailed(f"plugin {kind} failed ({command.lower()}): {_reason(ran.stdout)}")
        return ran.stdout


def _reason(output: bytes) -> str:
    try:
        error = json.loads(output)
        details = f": {error['details']}" if error.get("details") else ""
        return f"{error['msg']}{details} (code {error['code']})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return output.decode(errors="replace") or "it said nothing"


# --- command ------------------------------------------------------------------------------------


def attachment_of(netns: str, *, environment: Mapping[str, str]) -> Attachment:
    """Return what cnitool would make of a namespace and its variables."""
    try:
        capabilities = json.loads(environment.get("CAP_ARGS") or "{}")
    except ValueError as exc:
        raise InvalidInput(f"CAP_ARGS is no JSON: {exc}") from exc
    return Attachment(
        container_id=container_id(netns),
        netns=netns,
        ifname=environment.get("CNI_IFNAME") or "eth0",
        arguments=environment.get("CNI_ARGS", ""),
        capabilities=capabilities,
    )


def perform(verb: str, network: str, netns: str, *, environment: Mapping[str, str]) -> None:
    """Do one verb; ADD prints its result."""
    directory = Path(environment.get("NETCONFPATH") or DEFAULT_CONFIGURATION)
    networks = load_list(directory, name=network)
    runtime = Runtime(environment.get("CNI_PATH", ""), cache=Cache())
    attachment = attachment_of(netns, environment=environment)
    match verb:
        case "add":
            print(json.dumps(runtime.add(networks, attachment), indent=4))
        case "check":
            runtime.check(networks, attachment)
        case "del":
            runtime.delete(networks, attachment)
        case "gc":
            runtime.collect_garbage(networks)
        case _:
            runtime.status(networks)


def main(argv: Sequence[str]) -> int:
    """Be the command."""
    parser = argparse.ArgumentParser(
        prog="lab-runtime",
        description="A minimal CNI runtime with cnitool's arguments and variables.",
        epilog="example: CNI_PATH=/opt/cni/bin lab-runtime add k8s-pod-network /run/netns/pod-1",
    )
    parser.add_argument("verb", choices=("add", "check", "del", "gc", "status"))
    parser.add_argument("network", help="the name in the configuration")
    parser.add_argument("netns", nargs="?", default="", help="a path (add, check, del)")
    options = parser.parse_args(argv)
    if options.verb in ("add", "check", "del") and not options.netns:
        parser.error(f"{options.verb} needs a network namespace")
    try:
        perform(options.verb, options.network, options.netns, environment=os.environ)
    except PycniError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
