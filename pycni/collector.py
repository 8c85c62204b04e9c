"""How often a process that serves for long looks for garbage that reference counts don't find."""

import gc

_YOUNG = 20_000
"""By default 700: some requests at once have more objects than that, all of them still in use."""


def spare_collector() -> None:
    """Let it leave alone what is loaded by now, and look at the rest less often."""
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
