"""Make the first pools of a cluster that has none: as the settings say, or kubeadm's `podSubnet`.

All nodes do this at once, and an operator may be at it, too: pools have fixed names, each is made
only if it is not there, and what is there is never changed.  Once there is a pool, nothing is made
until the agent starts again: an operator who deletes pools wants them gone.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from pycni.datastore.opening import PodSubnets
from pycni.errors import AlreadyExists, InvalidInput, PycniError
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool, Node
from pycni.model.schema_rules import mistakes_of
from pycni.model.schema_yaml import Manifest
from pycni.plan.first_pools import first_pools, of_pods
from pycni.ports import Datastore

_log = logging.getLogger(__name__)

RETRY_S = 5.0
_MANIFEST = (
    '{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",'
    ' "metadata": {"name": "default-ipv4-ippool"}, "spec":'
    ' {"cidr": "192.168.0.0/16", "ipipMode": "Always", "natOutgoing": true}}'
)
NO_POOL = (
    "there is no IPPool, so no pod gets an address, and neither `pool` in agent.yaml nor kubeadm's"
    f" podSubnet says which: make one, with your pods' subnet, by  echo '{_MANIFEST}' |"
    " pycnictl --kubeconfig /etc/kubernetes/admin.conf apply -f -"
)


class FirstPools:
    """Sees to it that there is a pool; `stated` are subnets that the configuration names."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        stated: Sequence[IPNetwork],
        pod_subnets: PodSubnets,
        report: Callable[[str, str], None],
    ) -> None:
        self._datastore = datastore
        self._stated = tuple(stated)
        self._pod_subnets = pod_subnets
        self._report = report

    async def run(self) -> None:
        """Try until there is a pool, by whomever."""
        while True:
            try:
                there = await self.once()
                self._report("pool", "" if there else NO_POOL)
                if there:
                    return
            except (PycniError, OSError) as exc:
                self._report("pool", str(exc))
            await asyncio.sleep(RETRY_S)

    async def once(self) -> bool:
        """Make what is missing; return whether there is a pool now."""
        existing = [stored.value for stored in (await self._datastore.list(IPPool)).items]
        served = of_pods(existing)
        wanted = first_pools(await self._subnets(served), existing=existing)
        for pool in wanted:
            await self._make(pool, existing)
        return bool(served or wanted)

    async def _subnets(self, existing: Sequence[IPPool]) -> list[IPNetwork]:
        """Return the stated subnets, and kubeadm's where they may add to those and the pools."""
        versions = {one.version for one in self._stated} | {one.cidr.version for one in existing}
        if versions == {4, 6}:
            return list(self._stated)
        try:
            return [*self._stated, *await self._pod_subnets()]
        except PycniError:
            # Who has a pool may have given us no leave to ask.
            if existing or self._stated:
                return list(self._stated)
            raise

    async def _make(self, pool: IPPool, existing: Sequence[IPPool]) -> None:
        nodes = [stored.value for stored in (await self._datastore.list(Node)).items]
        manifest = Manifest(pool, f"cannot make the pool {pool.name}")
        if mistakes := mistakes_of([manifest], existing=[*existing, *nodes]):
            raise InvalidInput("; ".join(mistakes))
        try:
            await self._datastore.create(pool)
        except AlreadyExists:
            return  # another node was faster
        _log.info("made the first pool", extra={"pool": pool.name, "cidr": str(pool.cidr)})
