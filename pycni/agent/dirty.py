"""What the next pass must look at, kind by kind and key by key: a value that adds up."""

from dataclasses import dataclass, field

from pycni.model.network import RouteKey


@dataclass(slots=True)
class Dirty:
    """What the next pass must look at; `is_all` implies the rest, `is_doubtful` a new snapshot.

    `keys` are routes, `links` host ends of pods, `is_other` stands for tunnels, their addresses,
    sysctls and nftables, `is_neighbour` for the kernel's entries of VXLAN devices (what is wanted
    of them changes with `is_all` alone), `is_gate` for a source that may now have been heard
    completely.
    """

    keys: set[RouteKey] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    is_other: bool = False
    is_neighbour: bool = False
    is_bgp: bool = False
    is_gate: bool = False
    is_all: bool = False
    is_doubtful: bool = False

    def merge(self, more: "Dirty") -> None:
        """Add what another message made dirty."""
        self.keys |= more.keys
        self.links |= more.links
        self.is_other |= more.is_other
        self.is_neighbour |= more.is_neighbour
        self.is_bgp |= more.is_bgp
        self.is_gate |= more.is_gate
        self.is_all |= more.is_all
        self.is_doubtful |= more.is_doubtful

    def __bool__(self) -> bool:
        return bool(
            self.keys
            or self.links
            or self.is_other
            or self.is_neighbour
            or self.is_bgp
            or self.is_gate
            or self.is_all
            or self.is_doubtful
        )
