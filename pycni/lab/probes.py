"""Small questions to the running network: does it answer, who does it see, what is on the wire."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pycni.errors import TryAgain
from pycni.lab import commands
from pycni.lab.layout import ROUTER
from pycni.model.network import IPAddress

_ASKED_BY = re.compile(r"was asked by (\S+)")
SNIFF_START_S = 20.0
SNIFF_S = 10.0


async def answers(place: str, *, address: IPAddress) -> bool:
    """Ping once; a first packet may be lost to ARP below tc-bpf tunnels, so several more count."""
    for count, wait_s in (("1", "1"), ("4", "2")):
        ran = await commands.run(
            "ping", "-n", "-q", "-c", count, "-i", "0.2", "-W", wait_s, str(address), place=place
        )
        if ran.status == 0:
            return True
    return False


async def passes_unfragmented(place: str, *, address: IPAddress, payload: int) -> bool:
    """Ping with a payload of that size, Don't Fragment set."""
    ran = await commands.run(
        "ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do",
        "-s", str(payload), str(address), place=place,
    )  # fmt: skip
    return ran.status == 0


def url(address: IPAddress) -> str:
    """Return where an address's page is."""
    return f"http://[{address}]/" if address.version == 6 else f"http://{address}/"


async def seen_source(place: str, *, address: IPAddress) -> str:
    """Fetch a pod's or host's page; return the address that the server saw."""
    # -g: the brackets of an IPv6 address are no pattern.
    command = ["curl", "-g", "-s", "-S", "--max-time", "5", "--noproxy", "*", url(address)]
    page = await commands.run(*command, place=place)
    found = _ASKED_BY.search(page.output)
    if page.status != 0 or found is None:
        raise TryAgain(f"{place} can't fetch {url(address)}: {page.complaint}")
    return found[1]


@dataclass(slots=True)
class Sniffed:
    """What a sniffer saw; complete once its `with` block has ended."""

    lines: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def sniffing(expression: str, *, count: int) -> AsyncIterator[Sniffed]:
    """Watch the router for packets while the block runs; bounded in number and in time."""
    seen = Sniffed()
    process = await asyncio.create_subprocess_exec(
        *commands.inside(
            ROUTER,
            ["tcpdump", "-nn", "-l", "-q", "-t", "-i", "any", "-c", str(count), expression],
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=commands.environment(),
        cwd="/",
        start_new_session=True,
    )
    try:
        await _wait_until_listening(process)
        yield seen
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SNIFF_S):
                output, _ = await process.communicate()
                seen.lines = output.decode(errors="replace").splitlines()
    finally:
        commands.kill_group(process)
        await process.wait()


async def _wait_until_listening(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None  # noqa: S101 - asked for above
    said = b""
    async with asyncio.timeout(SNIFF_START_S):
        while line := await process.stderr.readline():
            said += line
            if b"listening on" in line.lower():
                return
    raise TryAgain(f"tcpdump ended at once: {said.decode(errors='replace').strip()}")
