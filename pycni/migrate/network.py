"""Read the network configurations on a host: which one is Calico's, which ours, and in what order.

Pure: texts of files in, values out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pycni.cni.netconf import OWN_TYPE

CALICO_TYPE = "calico"
_CALICO_IPAM = "calico-ipam"
ASIDE = ".before-pycni"
"""What follows the name of a configuration that was moved aside: no runtime looks for that."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The names of the files; as sentences, what gets in a migration's way, and what to mind."""

    calico: tuple[str, ...] = ()
    own: str = ""
    network: str = ""
    refused: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()


def read_networks(files: Mapping[str, str], *, directory: str) -> Networks:
    """Find Calico's files and ours among those of a directory, by what they say."""
    said = {name: _parse(text) for name, text in sorted(files.items())}
    calico = {name: network for name, network in said.items() if _main(network, CALICO_TYPE)}
    own = {name: network for name, network in said.items() if _main(network, OWN_TYPE)}
    refused = []
    if not own:
        refused.append(
            f"no file of {directory} names the plugin pycni: install it first"
            " (./install.sh --datastore kubernetes --no-start)"
        )
        return Networks(calico=tuple(calico), refused=tuple(refused))
    first = min(own)
    network = str(own[first].get("name", ""))
    for name, theirs in calico.items():
        refused += _refused(theirs, name=f"{directory}/{name}", network=network)
    left = (name for name in said if name < first and name not in calico and name not in own)
    refused += [f"{directory}/{name} would come before {first}: move it away" for name in left]
    lost = sorted(set().union(*map(_chained, calico.values())) - _chained(own[first]))
    attention = (
        f"{directory}/{first} does not chain {', '.join(lost)} as Calico's does: without portmap"
        " new pods have no hostPort, and rules that it made for pods stay when these go"
    )
    return Networks(tuple(calico), first, network, tuple(refused), (attention,) if lost else ())


def _chained(network: Mapping[str, Any]) -> set[str]:
    """Return the types of the plugins behind the first."""
    plugins = network.get("plugins", [])
    return {str(one.get("type")) for one in plugins[1:] if isinstance(one, dict)}


def _parse(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _main(network: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the plugin of that type that a network has; empty without one."""
    plugins = network.get("plugins", [network])
    found = plugins if isinstance(plugins, list) else []
    return next((one for one in found if isinstance(one, dict) and one.get("type") == kind), {})


def _refused(theirs: Mapping[str, Any], *, name: str, network: str) -> list[str]:
    plugin = _main(theirs, CALICO_TYPE)
    ipam = plugin.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    refused = []
    if theirs.get("name") != network:
        refused.append(
            f"{name} calls its network {theirs.get('name')!r} and pycni's is {network!r}, with"
            " which handles of addresses begin: give pycni's that name (install.sh --network)"
        )
    if "etcd_endpoints" in plugin or plugin.get("datastore_type") not in ("kubernetes", None):
        refused.append(
            f"{name} keeps its addresses in etcd, which pycni doesn't read: move Calico to the"
            " Kubernetes datastore first (calicoctl datastore migrate)"
        )
    if kind != _CALICO_IPAM:
        refused.append(
            f"{name} has its addresses from {kind or 'no IPAM plugin'}, so that they stand in no"
            " block: pycni would give them a second time; let Calico change to calico-ipam first"
        )
    return refused
