"""Whether the Node object is another than the one under which this machine has served so far.

Blocks and addresses are found by the node's name.  A Node that was deleted and made anew has that
name as well, often on another machine, and none of what its predecessor's pods had is in use here.
"""

import logging
from pathlib import Path

from pycni.files import put

_log = logging.getLogger(__name__)


class NodeIdentity:
    """The uid of the Node object, in a file on the machine's disk."""

    __slots__ = ("_file",)

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "node-uid"

    def is_another(self, uid: str, *, has_pods: bool) -> bool:
        """Tell it once; a machine that knows nothing yet and has no pods inherits as well.

        A Node without uid, as of the embedded datastore, is always the same.  Where it can't be
        noted, on a full disk, it is told later: all else that is to be taken back is looked for.
        """
        try:
            before = self._file.read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            before = ""
        if uid in ("", before):
            return False
        try:
            put(self._file, uid.encode(), mode=0o600)
        except OSError as exc:
            _log.warning("cannot note the node's identity", extra={"reason": str(exc)})
            return False
        return bool(before) or not has_pods
