"""How a pair is known between its making and its naming.

The kernel takes no ifalias when it makes a link, only when it changes one; a link group it takes at
once.  So a pair is born in a group that follows from its alias, and leaves it when it gets that: a
crash between the two leaves a pair of which the next request still knows whose it is.
"""

import hashlib

# Others' groups are small numbers or, for deletions, those of `pycni.kernel.unplug`.
_FIRST = 0x4000_0000
_COUNT = 0x3000_0000


def birth_group(alias: str) -> int:
    """Return the group in which the pair of that alias is born."""
    digest = hashlib.sha256(alias.encode()).digest()
    return _FIRST + int.from_bytes(digest[:8], "big") % _COUNT


def bears(alias: str, *, found: str, group: int) -> bool:
    """Tell whether a link whose alias and group were found is the one made for `alias`."""
    return found == alias or (not found and group == birth_group(alias))
