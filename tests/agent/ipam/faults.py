"""A datastore that fails at one call, or a process that dies there."""

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.errors import Conflict
from pycni.ports import Datastore
from tests.agent.death import Died


class Failing:
    """Raises once at the n-th call (for ever when the process died), before or after it."""

    def __init__(
        self,
        store: Datastore,
        *,
        at: int,
        error: type[BaseException],
        late: bool,
        is_atomic: bool = False,
    ) -> None:
        self.left = at
        self.error = error
        self.is_over = False
        name = "after" if late else "before"
        self.datastore = FaultyDatastore(store, is_atomic=is_atomic)
        setattr(self.datastore, name, self.hook)

    async def hook(self, call: Call) -> None:
        if self.is_over and self.error is Died:
            raise Died
        # A conflict is an answer to a write only.
        if self.error is Conflict and not call.is_write:
            return
        self.left -= 1
        if self.left == 0:
            self.is_over = True
            raise self.error("injected")
