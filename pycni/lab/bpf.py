"""A stand-in for tunl0 on kernels without IP-in-IP: a veth and two tc programs.

Same name, same routes, same source selection, real protocol-4 packets on the underlay, at the
host's full speed and with its nftables. What differs: the interface's kind; forwarding must be
on in both nodes; the first packet towards a neighbour, which waits for ARP, is lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pycni.errors import PycniError, TryAgain

NAME = "tunl0"
PEER = "tunl0x"
# Both known to ipip.bpf.c, which can't look a name up.
INDEX = 4242
MAC = "02:00:00:00:00:04"
# As the kernel's own tunl0: an Ethernet frame less the outer header.
MTU = 1480


def link_commands() -> list[list[str]]:
    """Compose the commands that make the interface: down and without address, like a real one."""
    return [
        ["ip", "link", "add", NAME, "index", str(INDEX), "address", MAC, "mtu", str(MTU),
         "type", "veth", "peer", "name", PEER],
        # Nobody answers ARP in a tunnel; the program takes the gateway from the route.
        ["ip", "link", "set", NAME, "arp", "off"],
        # The far end only gives tunl0 its carrier.
        ["ip", "link", "set", PEER, "arp", "off", "up"],
    ]  # fmt: skip


def program_commands(ifname: str, *, direction: str, section: str, path: Path) -> list[list[str]]:
    """Compose the commands that attach one program (`da`: its result is final)."""
    return [
        ["tc", "qdisc", "replace", "dev", ifname, "clsact"],
        ["tc", "filter", "add", "dev", ifname, direction,
         "bpf", "direct-action", "object-file", str(path), "section", f"tc/{section}"],
    ]  # fmt: skip


def install(netns_path: Path, underlay_ifname: str, object_path: Path) -> None:
    """Make tunl0 in a network namespace, sending through the underlay interface.

    The caller (the agent, as with a real tunl0) sets it up and gives it its address.
    """
    enter = ["nsenter", f"--net={netns_path}", "--"]
    encap = program_commands(NAME, direction="egress", section="encap", path=object_path)
    decap = program_commands(
        underlay_ifname, direction="ingress", section="decap", path=object_path
    )
    for command in [*link_commands(), *encap, *decap]:
        if complaint := _complaint([*enter, *command]):
            raise TryAgain(f"cannot make {NAME} in {netns_path}: {complaint}")


def find_obstacle(object_path: Path) -> str:
    """Say why this kernel can't do it; empty when it can. Tries it in namespaces of its own.

    One of them is for mounts: tc mounts a file system on /sys/fs/bpf where there is none.
    """
    if not object_path.exists():
        return f"{object_path} does not exist: run  bin/ensure bpf"
    steps = [
        *link_commands(),
        *program_commands(NAME, direction="egress", section="encap", path=object_path),
        *program_commands(NAME, direction="ingress", section="decap", path=object_path),
    ]
    script = " && ".join(" ".join(step) for step in steps)
    return _complaint(["unshare", "--net", "--mount", "--", "sh", "-c", script])


TRY_S = 120
"""A try takes a tenth of a second; a busy machine's kernel may be long about namespaces."""


def _complaint(command: Sequence[str]) -> str:
    """Run a command; return what it said if it failed."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TryAgain(f"{command[0]} has not ended within {TRY_S} s: try again later") from error
    except FileNotFoundError as error:
        raise PycniError(f"{command[0]} is not installed: run  apt-get install iproute2") from error
    if ran.returncode == 0:
        return ""
    said = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
    # libbpf explains at length; the first and the last line carry the reason.
    return f"{' '.join(command)}: {'; '.join(dict.fromkeys([said[0], said[-1]]))}"
