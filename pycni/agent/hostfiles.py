"""What a container runtime finds of us on the host, put there from a container.

The plugin comes first, by `main` in a container of its own that needs no privilege; the network's
configuration comes last, from the agent, and only while it serves: from the moment that it is there
the runtime calls the plugin, and the kubelet says that the node is ready.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycni.cni.netconf import OWN_IPAM, OWN_TYPE, RUNTIMES_SUFFIXES
from pycni.config import AgentConfig
from pycni.errors import InvalidInput
from pycni.files import put

LOOK_S = 0.2
KEEP_S = 10.0
"""How often to look whether the configuration is still there."""
_PLUGINS = (OWN_TYPE, OWN_IPAM)


# --- the plugin ---------------------------------------------------------------------------------


def install_plugin(source: Path, directory: Path) -> None:
    """Put the relay, and its second name for other main plugins, into the plugins' directory."""
    put(directory / "pycni", source.read_bytes(), mode=0o755)
    link = directory / "pycni-ipam"
    if not (link.is_symlink() and link.readlink() == Path("pycni")):
        new = directory / ".pycni-ipam.new"
        new.unlink(missing_ok=True)
        new.symlink_to("pycni")
        new.replace(link)


def main(argv: Sequence[str] | None = None) -> int:
    """Install the plugin; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="pycni-install",
        description="Put the CNI plugin where the host's runtime looks for plugins.",
        epilog="example: pycni-install /opt/pycni/cni/pycni /host/opt/cni/bin",
    )
    parser.add_argument("source", type=Path, help="the plugin's relay")
    parser.add_argument("directory", type=Path, help="the runtime's directory of plugins")
    arguments = parser.parse_args(argv)
    try:
        install_plugin(arguments.source, arguments.directory)
    except OSError as exc:
        sys.stderr.write(f"pycni-install: cannot install the plugin: {exc}\n")
        return 1
    return 0


# --- the network's configuration ----------------------------------------------------------------


def network_of(template: bytes, *, node: str, source: str) -> bytes:
    """Return a network's configuration as this node has it: its name filled in."""
    try:
        document = json.loads(template)
        plugins: list[dict[str, Any]] = document["plugins"]
        ours = [one for one in plugins if _is_ours(one)]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidInput(
            f"{source} is no list of CNI plugins ({exc!r}): see deploy/pycni.yaml for one"
        ) from exc
    if not ours:
        raise InvalidInput(f"{source}: no plugin there is of type 'pycni': add it")
    for plugin in ours:
        plugin["nodename"] = node
    return json.dumps(document, indent=2).encode() + b"\n"


def _is_ours(plugin: dict[str, Any]) -> bool:
    return plugin.get("type") in _PLUGINS or plugin.get("ipam", {}).get("type") in _PLUGINS


class Network:
    """Keeps the configuration of our network where the host's runtime looks for it."""

    def __init__(
        self,
        *,
        path: Path,
        content: bytes,
        is_ready: Callable[[], bool],
        report: Callable[[str, str], None],
    ) -> None:
        self._path = path
        self._content = content
        self._is_ready = is_ready
        self._report = report

    async def run(self) -> None:
        """Write it once all is ready, and again where it was changed, until cancelled.

        It stays when the agent goes: pods go on to be deleted, and new ones wait for the agent.
        """
        while not self._is_ready():  # noqa: ASYNC110 - several parts make it so, none tells of it
            await asyncio.sleep(LOOK_S)
        while True:
            self.write()
            await asyncio.sleep(KEEP_S)

    def write(self) -> None:
        """Write it where it is not as it should be, and report what keeps it from use."""
        try:
            put(self._path, self._content, mode=0o600)
            self._report("network", self._rival())
        except OSError as exc:
            self._report("network", f"cannot write {self._path}: {exc.strerror}")

    def _rival(self) -> str:
        """Say whose configuration runtimes take in place of ours."""
        names = (path.name for path in self._path.parent.iterdir())
        # Ours too may have been removed just now; it is written again soon.
        first = min((name for name in names if name.endswith(RUNTIMES_SUFFIXES)), default="")
        if not first or first >= self._path.name:
            return ""
        return (
            f"{self._path.with_name(first)} sorts before {self._path.name}, so runtimes use that"
            " network: remove it"
        )


def configured_network(
    config: AgentConfig,
    *,
    node: str,
    is_ready: Callable[[], bool],
    report: Callable[[str, str], None],
) -> Network | None:
    """Return what writes the network's configuration, None where an installation does."""
    if not config.cni_conflist:
        return None
    source = config.cni_template
    try:
        template = Path(source).read_bytes()
    except OSError as exc:
        raise InvalidInput(f"cannot read cni_template {source}: {exc.strerror}") from exc
    content = network_of(template, node=node, source=source)
    return Network(
        path=Path(config.cni_conflist), content=content, is_ready=is_ready, report=report
    )
