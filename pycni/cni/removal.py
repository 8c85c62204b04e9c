"""Take back what an ADD gave: interface, addresses, record, in this order.

For a DEL, for an ADD that fails, for what nobody holds any more, and for DELs that are owed.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from pycni.cni import delegated
from pycni.cni.tools import Engine
from pycni.errors import PycniError
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointState,
    PendingRelease,
    WorkloadEndpoint,
)
from pycni.plan.ownership import alias_of

_log = logging.getLogger(__name__)


async def remove(engine: Engine, endpoint: WorkloadEndpoint) -> None:
    """Remove interface, then addresses, then record; what fails to be released is journalled.

    The interface goes first: were the address free before, another pod could get it while the
    old route still leads here.
    """
    if endpoint.state is EndpointState.READY:
        _mark_unfinished(engine, endpoint)
    await unplug(engine, endpoint)
    await release(engine, endpoint, endpoint.addresses, was_used=True)
    engine.endpoints.remove(endpoint.key)


def _mark_unfinished(engine: Engine, endpoint: WorkloadEndpoint) -> None:
    """Note that an endpoint goes, so that nobody mends what is deleted or takes it for whole.

    On a full disk that can't be noted; a pod goes all the same, for a missing interface tells the
    same.  Of another plugin's pod nothing else would tell it.
    """
    try:
        engine.endpoints.put(replace(endpoint, state=EndpointState.INTENT))
    except OSError as exc:
        if not endpoint.has_interface:
            raise
        _log.warning(
            "a record can't be marked as unfinished, going on",
            extra={"endpoint": str(endpoint.key), "reason": str(exc)},
        )


async def unplug(engine: Engine, endpoint: WorkloadEndpoint) -> None:
    """Delete the interface, where it is of our making."""
    if endpoint.has_interface:
        await engine.podnet.unplug(host_veth=endpoint.host_veth, alias=alias_of(endpoint.key))


async def release(
    engine: Engine,
    endpoint: WorkloadEndpoint,
    addresses: Sequence[AssignedAddress],
    *,
    was_used: bool = False,
) -> None:
    """Release, or keep the debt in the journal: a DEL never fails for the datastore's sake.

    Another plugin's failure is the DEL's: a runtime repeats it, and nobody else has the means.
    """
    if endpoint.delegation is not None:
        await delegated.release(endpoint, endpoint.delegation)
        return
    try:
        # Whatever else the handle holds or counts, too: what a crash between two writes left.
        await engine.allocator.release_by_handle(
            endpoint.handle_id, key=endpoint.key, addresses=addresses, was_used=was_used
        )
    except PycniError as exc:
        _log.warning(
            "cannot release addresses now, journalled",
            extra={"endpoint": str(endpoint.key), "reason": str(exc)},
        )
        engine.endpoints.journal(
            PendingRelease(endpoint.key, handle_id=endpoint.handle_id, addresses=tuple(addresses))
        )
