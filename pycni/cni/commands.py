"""The verbs of the CNI specification: what each needs in its environment, and since when it is.

Pure.
"""

from enum import Enum


class Command(Enum):
    """The verbs of CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


NEEDS = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.GC: (),
    Command.STATUS: (),
    Command.VERSION: (),
}
SINCE = {Command.CHECK: (0, 4, 0), Command.GC: (1, 1, 0), Command.STATUS: (1, 1, 0)}
