"""Say what a kernel keeps the lab's nodes from doing, once for the whole lab.  Pure."""

from collections.abc import Mapping

LOSS = "no NAT out, no anti-spoofing"
_UNAVAILABLE = "unavailable"
_REMEDY = {
    "uml": "--tunnel bpf has both, and so has a host kernel with ipip",
    "host": "both need nftables in this machine's kernel, and the `nft` program",
}


def is_degraded(nat: str) -> bool:
    """Say whether an agent's word on NAT means that its kernel can't have any."""
    return nat.partition(":")[0] == _UNAVAILABLE


def nat_word(nat: str) -> str:
    """Return an agent's word on NAT without the cause."""
    return _UNAVAILABLE if is_degraded(nat) else nat


def degraded_lines(nats: Mapping[str, str], *, where: str) -> list[str]:
    """Return a line for each cause, usually one: the loss, the cause, what follows, the remedy.

    `nats` holds each node's word on NAT; `where` is the plan's, "host" or "uml".
    """
    nodes: dict[str, list[str]] = {}
    for node, nat in nats.items():
        if is_degraded(nat):
            nodes.setdefault(nat.partition(": ")[2], []).append(node)
    return [
        f"degraded{_place(names, nats)}: {LOSS} ({cause}); pods reach each other, but nothing"
        f" outside; {_REMEDY[where]}"
        for cause, names in nodes.items()
    ]


def _place(names: list[str], nats: Mapping[str, str]) -> str:
    return "" if len(names) == len(nats) else f" on {', '.join(names)}"
