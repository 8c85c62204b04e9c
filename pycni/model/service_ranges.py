"""The ranges that addresses of Services lie in, and whose the blocks of some of them are.

Beside `pycni.model.services`, because each ADD loads this.
"""

from dataclasses import dataclass

from pycni.model.network import IPNetwork

VIRTUAL = "virtual:"
"""What the name of a block's owner begins with that is no node, as Calico spells it in blocks."""
LOAD_BALANCER = f"{VIRTUAL}load-balancer"
"""The owner of the blocks from which Services get LoadBalancer addresses."""


@dataclass(frozen=True, slots=True)
class ServiceRanges:
    """Which addresses of Services are announced (`serviceClusterIPs` and its like).

    `is_aggregating` (`serviceLoadBalancerAggregation`): every node announces the ranges of
    `load_balancer` whole; else it announces each address of a Service in them by itself.
    """

    cluster: tuple[IPNetwork, ...] = ()
    external: tuple[IPNetwork, ...] = ()
    load_balancer: tuple[IPNetwork, ...] = ()
    is_aggregating: bool = True

    @property
    def all(self) -> tuple[IPNetwork, ...]:
        """Return the ranges of all kinds."""
        return (*self.cluster, *self.external, *self.load_balancer)
