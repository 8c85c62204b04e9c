"""Whether a node's clock, resolver and API server serve it well.  Pure."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from pycni.check.findings import Finding, Severity

CLOCK_LIMIT_S = 2.0
LATENCY_LIMIT_S = 1.0
_RESOLUTION_S = 1.0
"""Of the time that a server states: it leaves the fraction out."""


def judge_clock(*, ours: float, servers: float, latency_s: float) -> list[Finding]:
    """Compare our time, halfway through a request, with what the server stated."""
    ahead = ours - (servers + _RESOLUTION_S / 2)
    if abs(ahead) <= CLOCK_LIMIT_S + (_RESOLUTION_S + latency_s) / 2:
        return []
    return [
        Finding(
            "clock",
            Severity.WARNING,
            f"this node's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the"
            " API server's",
            "tokens and certificates are refused before or after their time, and leases expire",
            "timedatectl set-ntp true  (or start chronyd or ntpd), on the node that is wrong",
        )
    ]


def judge_api(*, latency_s: float) -> list[Finding]:
    """Judge how fast the API server answers."""
    if latency_s <= LATENCY_LIMIT_S:
        return []
    return [
        Finding(
            "api",
            Severity.WARNING,
            f"the API server answers after {latency_s:.1f} s",
            "each new pod waits for several answers",
            "kubectl get --raw '/readyz?verbose'  and look at the load and the disk of etcd",
        )
    ]


def silent_api(reason: str) -> Finding:
    """Say that the API server can't be used."""
    return Finding(
        "api",
        Severity.ERROR,
        reason,
        "running pods stay as they are, but no pod gets an address until it answers",
        "kubectl get --raw /readyz  from this node, with the same kubeconfig",
    )


def missing_kinds(names: Sequence[str]) -> list[Finding]:
    """Say which definitions the cluster lacks."""
    if not names:
        return []
    return [
        Finding(
            "api",
            Severity.ERROR,
            f"the cluster doesn't know {', '.join(names)}",
            "pools and addresses are kept in these kinds of objects",
            "kubectl apply --server-side -f deploy/crds.yaml",
        )
    ]


def parse_resolv_conf(text: str) -> list[str]:
    """Return the name servers of a resolv.conf, as the resolver reads it: at most three."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return found[:3]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def judge_dns(answered: Mapping[str, bool], *, path: str) -> list[Finding]:
    """Judge which name servers of the node answer."""
    if any(answered.values()):
        return [_silent_server(one, path=path) for one, did in answered.items() if not did]
    what = f"none answers: {', '.join(answered)}" if answered else "none is named"
    return [
        Finding(
            "dns",
            Severity.ERROR,
            f"of the name servers in {path} {what}",
            "images can't be pulled, and the cluster's DNS passes questions on to these",
            f"name servers in {path} that answer:  resolvectl status, or ask who runs the network",
        )
    ]


def _silent_server(address: str, *, path: str) -> Finding:
    return Finding(
        "dns",
        Severity.WARNING,
        f"name server {address} of {path} does not answer",
        "each name that is looked up may wait seconds for it",
        f"remove it from {path}, or from what writes that file:  resolvectl status",
    )
