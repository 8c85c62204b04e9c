"""What a lab asks of a topology beyond what any cluster on paper needs.  Pure.

The command asks before it starts anything; the supervisor asks again of what reaches it.
"""

from pycni.errors import InvalidInput
from pycni.lab.underlay import places
from pycni.model.resources import Node
from pycni.model.schema_config import Config
from pycni.model.schema_rules import mistakes_of
from pycni.model.schema_yaml import Manifest
from pycni.topology import model
from pycni.topology.model import Topology


def read_topology(text: str, *, source: str) -> Topology:
    """Read a topology of which a lab can be made; errors name where it came from."""
    topology = model.read_topology(text, source=source)
    try:
        require_places(topology)
        config_of(topology)
    except InvalidInput as exc:
        raise InvalidInput(f"{source}: {exc}") from exc
    return topology


def require_places(topology: Topology) -> None:
    """Raise unless each network namespace has a name of its own."""
    seen: set[str] = set()
    for place in places(topology):
        if place in seen:
            raise InvalidInput(f"two things would be called {place!r}: rename one of them")
        seen.add(place)


def config_of(topology: Topology) -> tuple[Config, ...]:
    """Return the objects to begin with, by the rules of `pycnictl apply`."""
    found: list[Manifest] = []
    for number, resource in enumerate(topology.resources):
        if not isinstance(resource, Config):
            raise InvalidInput(f"resources[{number}] is kept by pycni itself: leave it out")
        found.append(Manifest(resource, f"resources[{number}]"))
    nodes = [Node(node.name, ipv4=node.address, ipv6=node.address6) for node in topology.nodes]
    if mistakes := mistakes_of(found, existing=nodes):
        raise InvalidInput("\n".join(mistakes))
    return tuple(manifest.value for manifest in found)
