"""The releases that DELs could not do and left in the journal: paid later, or by the next ADD.

A DEL never fails for the datastore's sake, so what it owes is kept on disk, guarded by sequence
numbers: by the time that it is paid the address may be somebody else's, rightly.  Where neither
agent nor engine was there, the relay has journalled the whole DEL: then there is a record still.
"""

import logging
from collections.abc import Sequence

from pycni.cni.removal import remove
from pycni.cni.tools import Engine
from pycni.errors import PycniError, TryAgain
from pycni.model.endpoints import EndpointKey, PendingRelease

_log = logging.getLogger(__name__)


async def settle(engine: Engine, key: EndpointKey) -> None:
    """Do the release that an earlier DEL of this key still owes, before anything is assigned."""
    pending = engine.endpoints.get_pending(key)
    if pending is not None:
        await _pay(engine, pending)


async def pay_debts(engine: Engine) -> Sequence[str]:
    """Do the releases that DELs left in the journal; return why some could not be done.

    What crashes left while records and releases were being written goes as well.
    """
    problems = [*engine.endpoints.sweep()]
    for pending in engine.endpoints.pending():
        is_locked = False
        try:
            async with engine.endpoints.lock(pending.key, timeout_s=0):
                is_locked = True
                await _pay(engine, pending)
        except PycniError as exc:
            if is_locked or not isinstance(exc, TryAgain):  # else a request has it in hand
                problems.append(str(exc))
        except OSError as exc:  # the kernel's, or a disk's: the next one may go all the same
            problems.append(f"cannot pay what {pending.key} owes: {exc}")
    return problems


async def _pay(engine: Engine, pending: PendingRelease) -> None:
    """Do one journalled release, under the lock of its key.

    An ADD may have settled it since the journal was read, and been given the address again.
    """
    if pending != engine.endpoints.get_pending(pending.key):
        return
    record = engine.endpoints.get(pending.key)
    if record is not None:
        # Interface and record first: nobody is to get the address while they are there.
        await remove(engine, record)
        # What could not be released now is known more exactly since then.
        pending = engine.endpoints.get_pending(pending.key) or pending
    if pending.addresses:
        outcome = await engine.allocator.release(
            pending.addresses, handle_id=pending.handle_id, was_used=True
        )
        if outcome.refused:  # rightly, where somebody else has it by now
            _log.warning(
                "an owed address was given anew",
                extra={"endpoint": str(pending.key), "addresses": str(outcome.refused)},
            )
    else:
        await engine.allocator.release_by_handle(pending.handle_id, key=pending.key, was_used=True)
    engine.endpoints.settle(pending)
