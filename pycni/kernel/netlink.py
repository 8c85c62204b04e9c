"""The request socket: send netlink messages in bulk, collect each one's answer.

It knows no meaning of a message.  The kernel performs a request inside `send` and has queued its
answer when that returns, so nothing here waits on anybody else.
"""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Self

from pycni.errors import TryAgain
from pycni.kernel.wire import (
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Ack,
    Message,
    Request,
    messages,
    pack_batch,
    parse_ack,
)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
# Without CAP_ACK every refusal echoes the whole request; EXT_ACK brings the reason in words;
# strict checking makes the kernel honour a dump's filters.  Older ones lack some.
_OPTIONS = (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK)

# 200 refusals of an skb each fit into the buffer many times over; more per send gains nothing and
# keeps the caller's event loop waiting (200 routes are about 2 ms).
BATCH = 200
_QUESTIONS = 16
_BUFFER = 4 << 20
_RECEIVE = 1 << 17
DUMP_TRIES = 8

_DONE = Ack(0, 0, "")


class KernelError(OSError):
    """A request that the kernel refused: errno, and its own explanation where it gives one."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text or os.strerror(code))


class DumpInterruptedError(Exception):
    """Something changed while the kernel listed: entries may be missing or double; list again."""


def still_interrupted(request: Request) -> TryAgain:
    """Say that even the last of `DUMP_TRIES` listings was interrupted: it must end somewhere."""
    return TryAgain(
        f"cannot list message type {request.type} from the kernel: "
        f"interrupted by changes {DUMP_TRIES} times in a row"
    )


def _open_raw(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)


def open_socket(protocol: int = NETLINK_ROUTE, *, buffer: int = _BUFFER) -> socket.socket:
    """Open and bind a netlink socket in the calling thread's network namespace."""
    raw = _open_raw(protocol)
    try:
        try:
            raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
            raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, _BUFFER)
        except PermissionError:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        raw.bind((0, 0))
    except OSError:
        raw.close()
        raise
    return raw


def join_group(raw: socket.socket, group: int) -> None:
    """Subscribe a socket to a multicast group (RTNLGRP_*, NFNLGRP_*)."""
    raw.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)


class NetlinkSocket:
    """One request socket; it may be used by one thread at a time."""

    def __init__(self, protocol: int = NETLINK_ROUTE, *, is_brief: bool = False) -> None:
        """Open it; `is_brief` for one exchange of a few requests, with no listing.

        Such a one spares six system calls: the kernel's own buffer is large enough for it.
        """
        self._sequence = 0
        self._raw = _open_raw(protocol) if is_brief else open_socket(protocol)
        for option in (_NETLINK_EXT_ACK,) if is_brief else _OPTIONS:
            try:
                self._raw.setsockopt(_SOL_NETLINK, option, 1)
            except OSError as exc:
                if exc.errno != errno.ENOPROTOOPT:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for ioctls in the socket's own namespace."""
        return self._raw.fileno()

    def port(self) -> int:
        """Return the number by which the kernel names this socket in what it tells others."""
        port: int = self._raw.getsockname()[0]
        return port

    def send(self, requests: Sequence[Request]) -> list[Ack]:
        """Send all requests, in order; return an answer for each, whatever became of the others."""
        answers: list[Ack] = []
        for start in range(0, len(requests), BATCH):
            answers += self.exchange(requests[start : start + BATCH])[0]
        return answers

    def call(self, *requests: Request) -> list[Message]:
        """Send requests that must all succeed; return the messages that they brought.

        The kernel performs all of them even when an early one fails; the first error is raised.
        """
        answers, replies = self.exchange(requests)
        for answer in answers:
            if answer.errno:
                raise KernelError(answer.errno, answer.text)
        return replies

    def ask(self, questions: Sequence[Request]) -> list[Message | None]:
        """Ask for one object each; return the message about it, None where there is none."""
        found: list[Message | None] = []
        # Few at once: all answers wait in the socket's buffer before the first is read.
        for start in range(0, len(questions), _QUESTIONS):
            part = questions[start : start + _QUESTIONS]
            first = self._sequence + 1
            told = {message.sequence: message for message in self.exchange(part)[1]}
            found += [told.get(first + offset) for offset in range(len(part))]
        return found

    def exchange(self, requests: Sequence[Request]) -> tuple[list[Ack], list[Message]]:
        """Send a few requests at once; return an answer for each, and what else they brought.

        Refusals are told unasked, and answers come in the order of the requests.  So only the last
        one asks for an acknowledgement: with that all is said, in one message when all went well.
        """
        if not requests:
            return [], []
        first, last = self._sequence + 1, self._sequence + len(requests)
        self._sequence = last
        self._raw.send(pack_batch(requests, first=first))
        answers = [_DONE] * len(requests)
        replies: list[Message] = []
        while True:
            for message in messages(self._raw.recv(_RECEIVE)):
                if message.sequence < first:
                    continue  # The rest of an exchange that was broken off.
                if message.type != NLMSG_ERROR:
                    replies.append(message)
                    continue
                answers[message.sequence - first] = parse_ack(message)
                if message.sequence == last:
                    return answers, replies

    def dump(self, request: Request) -> list[Message]:
        """List everything that a request asks for, in one consistent pass."""
        for _ in range(DUMP_TRIES):
            try:
                return [message for part in self.dump_parts(request) for message in part]
            except DumpInterruptedError:
                continue
        raise still_interrupted(request)

    def dump_parts(self, request: Request) -> Iterator[list[Message]]:
        """Yield a listing in the pieces in which the kernel sends it.

        Raises `DumpInterruptedError` at the end when something changed meanwhile.  A caller that
        breaks off must close the socket: the kernel would refuse the next listing.
        """
        is_interrupted = False
        for part in self._dump_once(request):
            is_interrupted |= any(message.flags & NLM_F_DUMP_INTR for message in part)
            yield part
        if is_interrupted:
            raise DumpInterruptedError

    def _dump_once(self, request: Request) -> Iterator[list[Message]]:
        self._sequence += 1
        sequence = self._sequence
        flags = request.flags | NLM_F_DUMP
        self._raw.send(Request(request.type, flags, request.body).packed(sequence))
        while True:
            part = [m for m in messages(self._raw.recv(_RECEIVE)) if m.sequence == sequence]
            last = part[-1] if part else None
            if last is None or last.type not in {NLMSG_DONE, NLMSG_ERROR}:
                yield part
                continue
            answer = parse_ack(last)
            if answer.errno == errno.EINTR:
                raise DumpInterruptedError
            if answer.errno:
                raise KernelError(answer.errno, answer.text)
            yield part[:-1]
            return
