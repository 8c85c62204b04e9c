"""Addresses by another IPAM plugin: `ipam.type` names one, such as host-local or static.

It is executed as the specification wants it (section 4, "Delegated plugins"): found on CNI_PATH,
with the attachment's CNI_* variables and the network configuration on standard input.  It is a
program of root's choice, which may hang or print for ever: time and output are bounded, and of the
environment it sees nothing else.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_interface
from subprocess import DEVNULL, PIPE
from typing import Any

from pycni.cni.errors import Code
from pycni.cni.protocol import Request
from pycni.cni.results import NoResult, read_result
from pycni.errors import DelegateFailed, InvalidInput, TryAgain
from pycni.model.endpoints import AssignedAddress, Delegation, EndpointKey, WorkloadEndpoint
from pycni.model.network import IPAddress

DEADLINE_S = 10.0
"""Twice that is less than a request may take: what ADD did, its DEL may undo in time."""
MAX_OUTPUT = 1 << 20
_MAX_SAID = 500


def find(delegation: Delegation) -> str:
    """Return the plugin's executable; raise `InvalidInput` where there is none."""
    # Relative directories would be those of whoever started us.
    directories = [one for one in delegation.path.split(":") if one.startswith("/")]
    found = [f"{directory}/{delegation.plugin}" for directory in directories]
    path = next(filter(os.path.isfile, found), None)
    if path is None:
        raise InvalidInput(
            f"ipam.type {delegation.plugin!r} is in no directory of CNI_PATH"
            f" ({delegation.path or 'which is not set'}): install it there, or correct ipam.type"
        )
    if not os.access(path, os.X_OK):
        raise InvalidInput(f"{path}, named by ipam.type, is not executable: chmod it, or correct")
    return path


async def assign(
    request: Request, delegation: Delegation, *, is_own: Callable[[IPAddress], bool]
) -> tuple[tuple[AssignedAddress, ...], Delegation]:
    """Have the plugin give addresses, which stand alone in their networks as all our pods'.

    Its prefix lengths, gateways and routes are for a link that our pods don't have.  `is_own`
    tells the host's own addresses.
    """
    said = await _call("ADD", delegation, key=request.key, netns=request.netns)
    try:
        document = json.loads(said)
        if not isinstance(document, dict):
            raise TypeError("it is no JSON object")
        result = read_result(document, version=request.config.cni_version)
    except (ValueError, TypeError, RecursionError, NoResult) as exc:
        raise DelegateFailed(f"{delegation.plugin} answered ADD with no result: {exc}") from exc
    ips = dict.fromkeys(ip_interface(one["address"]).ip for one in result["ips"])
    if not ips:
        raise DelegateFailed(f"{delegation.plugin} answered ADD without an address")
    for ip in ips:
        if _is_no_pods(ip) or is_own(ip):
            why = "is this host's own" if is_own(ip) else "no pod may have"
            raise DelegateFailed(f"{delegation.plugin} gave {ip}, which {why}: correct its ranges")
    addresses = tuple([AssignedAddress(ip_interface(ip)) for ip in ips])
    return addresses, replace(delegation, answer=json.dumps(document))


def _is_no_pods(ip: IPAddress) -> bool:
    """Tell whether an address means something else than one pod wherever it is used."""
    return (
        ip.is_unspecified
        or ip.is_loopback
        or ip.is_multicast
        or ip.is_link_local
        or str(ip) == "255.255.255.255"
    )


def latest(record: WorkloadEndpoint, request: Request) -> Delegation | None:
    """Return how to call the plugin that gave an endpoint's addresses, as last said."""
    before, now = record.delegation, request.delegation
    # Another plugin than then has not given them.
    is_same = before is not None and now is not None and before.plugin == now.plugin
    return now if is_same else before


async def release(endpoint: WorkloadEndpoint, delegation: Delegation) -> None:
    """Have the plugin take back what an endpoint has; nothing there is its success, too."""
    await _call("DEL", delegation, key=endpoint.key, netns=endpoint.netns)


async def check(request: Request, record: WorkloadEndpoint) -> None:
    """Have the plugin compare its books with what it answered: our result says other things."""
    given = record.delegation
    if given is None:
        return
    delegation = latest(record, request) or given
    whole = json.loads(delegation.config) | {"prevResult": json.loads(given.answer)}
    asked = replace(delegation, config=json.dumps(whole))
    await _call("CHECK", asked, key=request.key, netns=request.netns)


async def ask(verb: str, request: Request, delegation: Delegation) -> None:
    """Have the plugin do GC or answer STATUS, where it speaks a version that has them."""
    version = request.config.cni_version
    said = await _call("VERSION", delegation)
    try:
        speaks = version in json.loads(said)["supportedVersions"]
    except (ValueError, RecursionError, TypeError, KeyError) as exc:
        raise DelegateFailed(f"{delegation.plugin} answered VERSION with no list") from exc
    if speaks:
        await _call(verb, delegation)


# --- running --------------------------------------------------------------------------------------


async def _call(
    verb: str, delegation: Delegation, *, key: EndpointKey | None = None, netns: str = ""
) -> bytes:
    """Run the plugin for one verb; return what it printed."""
    path = find(delegation)
    variables = {"CNI_COMMAND": verb, "CNI_PATH": delegation.path}
    if key is not None:
        attachment = {"CNI_CONTAINERID": key.container_id, "CNI_IFNAME": key.ifname}
        variables |= attachment | {"CNI_NETNS": netns, "CNI_ARGS": delegation.args}
    environment = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    what = f"{verb} by {path}"
    try:
        transport, talk = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Talk(delegation.config.encode(), what=what),
            path,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,  # so that whatever it starts ends with it
        )
    except OSError as exc:
        raise DelegateFailed(f"cannot run {path}, named by ipam.type: {exc.strerror}") from exc
    output = await _finish(transport, talk, what=what)
    if status := transport.get_returncode():
        raise _refusal(what, output, status=status)
    return output


class _Talk(asyncio.SubprocessProtocol):
    """Gives a plugin its input, and takes its output up to a limit."""

    def __init__(self, stdin: bytes, *, what: str) -> None:
        loop = asyncio.get_running_loop()
        self._stdin = stdin
        self._what = what
        self._output = bytearray()
        self.said: asyncio.Future[bytes] = loop.create_future()
        """All that was printed, once it has ended and nobody holds its output any more."""
        self.exited: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - as documented
        pipe = transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)  # noqa: S101 - it was asked for
        # Not everyone reads it, and a closed pipe is no error here.
        pipe.write(self._stdin)
        pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - there is one
        self._output += data
        if len(self._output) > MAX_OUTPUT and not self.said.done():
            text = f"{self._what} printed over {MAX_OUTPUT} bytes, and was ended"
            self.said.set_exception(DelegateFailed(text))

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - never one
        if not self.said.done():
            self.said.set_result(bytes(self._output))


async def _finish(transport: asyncio.SubprocessTransport, talk: _Talk, *, what: str) -> bytes:
    """Wait for all that a plugin says; end what takes too long, with all that it started."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await talk.said
    except BaseException as exc:
        # The whole session: the plugin may have ended, and left somebody who holds its output.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        if isinstance(exc, TimeoutError):
            text = f"{what} took over {DEADLINE_S:g} s, and was ended: try again"
            raise TryAgain(text) from exc
        raise
    finally:
        transport.close()
        await talk.exited


def _refusal(what: str, output: bytes, *, status: int) -> TryAgain | DelegateFailed:
    """Return a plugin's error as ours; "try again later" stays that."""
    try:
        said = json.loads(output)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, Mapping):
        return DelegateFailed(f"{what} ended with status {status}, and said no error")
    text = f"{what} failed: {_text(said, 'msg')}"
    if details := _text(said, "details"):
        text += f" ({details})"
    return TryAgain(text) if said.get("code") == Code.TRY_AGAIN else DelegateFailed(text)


def _text(said: Mapping[str, Any], key: str) -> str:
    return str(said.get(key) or "")[:_MAX_SAID]
