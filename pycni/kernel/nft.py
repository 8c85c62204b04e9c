"""Load our nftables table and watch over it; what stands in it is `pycni.plan.nat`'s business.

Loading is done by the `nft` program, whole and in one transaction.  Reading back, which happens
often, is done over netlink: no process is started to see that nothing has changed.
"""

import errno
import shutil
import socket
import struct

from pycni import programs
from pycni.errors import TryAgain
from pycni.kernel.netlink import (
    NETLINK_NETFILTER,
    KernelError,
    NetlinkSocket,
    join_group,
    open_socket,
)
from pycni.kernel.wire import Message, Request, attributes, parse_text, text
from pycni.model.network import NatUnavailable, Ruleset
from pycni.plan.nat import DIGEST_PREFIX, PROBE, TABLE, rule_count

_NFPROTO_INET = 1
_NFNL_SUBSYS_NFTABLES = 10 << 8
_NFT_MSG_GETCHAIN = _NFNL_SUBSYS_NFTABLES | 4
_NFT_MSG_GETRULE = _NFNL_SUBSYS_NFTABLES | 7
_NFT_MSG_GETOBJ = _NFNL_SUBSYS_NFTABLES | 19
_NFTA_TABLE = 1
_NFTA_CHAIN_NAME = 3
_NFTA_OBJ_NAME = 2
_NFTA_OBJ_DATA = 4
_NFTA_COUNTER_PACKETS = 2
_NFNLGRP_NFTABLES = 7
_NFGENMSG = struct.Struct(">BBH")
_EVENT_BUFFER = 1 << 20
_TIMEOUT_S = 10.0


class Nftables:
    """Our one table in this process's network namespace."""

    def __init__(self) -> None:
        try:
            self._socket: NetlinkSocket | None = NetlinkSocket(NETLINK_NETFILTER)
        except OSError as exc:
            if exc.errno not in {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}:
                raise
            self._socket = None
        self._unavailable: NatUnavailable | None = None
        self._is_probed = False

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    async def unavailable(self) -> NatUnavailable | None:
        """Say why there can be no table here, or None; asks the kernel once, without effect."""
        if self._socket is None:
            return NatUnavailable("the kernel has no netfilter netlink")
        if shutil.which("nft") is None:
            return NatUnavailable("there is no `nft` program on PATH: install nftables")
        if not self._is_probed:
            # --check has the kernel judge every kind of expression that we use, then abort.
            code, complaint = await _run_nft("--check", "--file", "-", stdin=PROBE)
            if code != 0:
                reason = f"the kernel refuses our kind of nftables table: {complaint}"
                self._unavailable = NatUnavailable(reason)
            self._is_probed = True
        return self._unavailable

    async def replace(self, ruleset: Ruleset) -> None:
        """Replace the whole table in one transaction; raises OSError when that is refused."""
        reason = await self.unavailable()
        if reason is not None:
            raise KernelError(errno.EOPNOTSUPP, reason.reason)
        code, complaint = await _run_nft("--file", "-", stdin=ruleset.text)
        if code != 0:
            raise KernelError(errno.EINVAL, complaint)

    async def delete(self) -> None:
        """Delete the table; absent is success."""
        if self.digest() is None:
            return
        # Adding first makes the deletion succeed even if somebody else deletes it just now.
        gone = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
        code, complaint = await _run_nft("--file", "-", stdin=gone)
        if code != 0:
            raise KernelError(errno.EINVAL, complaint)

    def digest(self) -> str | None:
        """Return the digest that our table carries, None without a table of ours.

        The digest tells how many rules belong to it: where some were removed or added, a text is
        returned that equals no digest.
        """
        for message in self._dump(_NFT_MSG_GETCHAIN):
            found = attributes(message.body, start=_NFGENMSG.size)
            name = parse_text(found.get(_NFTA_CHAIN_NAME, b""))
            if not _is_ours(found) or not name.startswith(DIGEST_PREFIX):
                continue
            digest = name.removeprefix(DIGEST_PREFIX)
            count = sum(
                _is_ours(attributes(rule.body, start=_NFGENMSG.size))
                for rule in self._dump(_NFT_MSG_GETRULE)
            )
            return digest if count == rule_count(digest) else f"{digest} but {count} rules"
        return None

    def counters(self) -> dict[str, int]:
        """Return how many packets each named counter of our table has seen."""
        packets = {}
        for message in self._dump(_NFT_MSG_GETOBJ):
            found = attributes(message.body, start=_NFGENMSG.size)
            if not _is_ours(found):
                continue
            data = attributes(found.get(_NFTA_OBJ_DATA, b""))
            name = parse_text(found.get(_NFTA_OBJ_NAME, b""))
            packets[name] = int.from_bytes(data.get(_NFTA_COUNTER_PACKETS, b""), "big")
        return packets

    def subscribe(self) -> socket.socket | None:
        """Return a non-blocking socket that becomes readable whenever any table changes."""
        if self._socket is None:
            return None
        raw = open_socket(NETLINK_NETFILTER, buffer=_EVENT_BUFFER)
        try:
            join_group(raw, _NFNLGRP_NFTABLES)
        except OSError:
            raw.close()
            return None
        raw.setblocking(False)
        return raw

    def drain(self, raw: socket.socket) -> bool:
        """Empty a subscribed socket; return whether there was anything.

        What the events say doesn't matter, nor that some were dropped: the table is read again.
        """
        had_any = False
        while True:
            try:
                raw.recv(1 << 16)
            except BlockingIOError:
                return had_any
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
            had_any = True

    def _dump(self, kind: int) -> list[Message]:
        if self._socket is None:
            return []
        # The kernel lists the whole family unless it honours the table's name.
        head = _NFGENMSG.pack(_NFPROTO_INET, 0, 0)
        try:
            return self._socket.dump(Request(kind, 0, head + text(_NFTA_TABLE, TABLE)))
        except KernelError as exc:
            # Without nf_tables in the kernel there is no such message, and so no table of ours.
            if exc.errno in {errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT}:
                return []
            raise


def _is_ours(found: dict[int, bytes]) -> bool:
    return parse_text(found.get(_NFTA_TABLE, b"")) == TABLE


async def _run_nft(*arguments: str, stdin: str) -> tuple[int, str]:
    try:
        ran = await programs.run(["nft", *arguments], stdin=stdin, timeout_s=_TIMEOUT_S)
    except TimeoutError as exc:
        raise TryAgain(f"nft gave no answer within {_TIMEOUT_S:.0f} s") from exc
    # Without the place in a file that was our pipe.
    return ran.status, ran.first_complaint.rpartition("Error: ")[2]
