"""Which chains of a firewall keep pods' packets from being forwarded.  Pure.

A packet has to pass every chain at the hook: what one accepts another may still drop, so rules of
our own table could not mend it.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from pycni.check.findings import Finding, Severity
from pycni.model.endpoints import HOST_VETH_PREFIX
from pycni.model.network import IPNetwork

PODS = f"{HOST_VETH_PREFIX}*"
"""Pods' host ends, in nftables's words."""

_WHY = (
    "packets from or to pods are dropped when they are forwarded; Docker, ufw and"
    " firewalld do so, and accept only their own"
)
DROP = "drop"
_IN, _OUT = "iifname", "oifname"
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: where it leads ("accept", "drop", or a chain's name), and whom it holds for."""

    verdict: str
    matches: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The chains of one table of rules; `dropping` are those that drop what no rule accepts."""

    program: str
    family: str
    name: str
    dropping: tuple[str, ...]
    rules: Mapping[str, Sequence[Rule]] = field(default_factory=dict)


def forward_chains(listing: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return family, table and name of each chain that packets pass which are forwarded.

    `listing` is what `nft -j list chains` prints.
    """
    chains = (one["chain"] for one in listing["nftables"] if "chain" in one)
    return sorted((one["family"], one["table"], one["name"]) for one in chains if _is_forward(one))


def _is_forward(chain: Mapping[str, Any]) -> bool:
    return chain.get("hook") == "forward" and chain["family"] in _FAMILIES


def parse_nft(listing: Mapping[str, Any], *, family: str, name: str) -> Table:
    """Return a table, or one chain of it, as `nft -j list table` prints it."""
    rules: dict[str, list[Rule]] = {}
    policies = {}
    for one in listing["nftables"]:
        if "chain" in one and _is_forward(one["chain"]):
            policies[one["chain"]["name"]] = one["chain"]["policy"]
        if "rule" in one:
            rule = _nft_rule(one["rule"].get("expr", ()))
            rules.setdefault(one["rule"]["chain"], []).append(rule)
    dropping = [
        chain for chain, policy in policies.items() if policy == DROP or _ends(rules.get(chain, ()))
    ]
    return Table("nft", family, name, tuple(dropping), rules)


def _ends(rules: Sequence[Rule]) -> bool:
    """Tell whether a last rule drops the rest, as firewalld has it."""
    return bool(rules) and rules[-1] == Rule(DROP)


def _nft_rule(expressions: Iterable[Mapping[str, Any]]) -> Rule:
    verdict, matches = "", []
    for one in expressions:
        ((kind, said),) = one.items()
        if kind == "accept":
            verdict = "accept"
        elif kind in {"drop", "reject"}:
            verdict = DROP
        elif kind in {"jump", "goto"}:
            verdict = said["target"]
        elif kind == "match":
            matches.append(_nft_match(said))
        elif kind == "xt" and said == {"type": "target", "name": "REJECT"}:
            verdict = DROP  # as iptables-nft has it
        elif kind not in {"counter", "comment"} and said != {"type": "match", "name": "comment"}:
            matches.append(("other", kind))
    return Rule(verdict, tuple(matches))


def _nft_match(said: Mapping[str, Any]) -> tuple[str, str]:
    left, right = said["left"], said["right"]
    if said["op"] == "==" and isinstance(left, dict):
        if isinstance(right, str) and left.get("meta", {}).get("key") in {_IN, _OUT}:
            return left["meta"]["key"], right
        key = left.get("payload", {}).get("field")
        if key in {"saddr", "daddr"} and isinstance(right, dict) and "prefix" in right:
            return key, f"{right['prefix']['addr']}/{right['prefix']['len']}"
    return "other", str(said)


_VERDICTS = {"ACCEPT": "accept", "DROP": DROP, "REJECT": DROP}
_SAY_NOTHING = {"--comment", "--reject-with"}
_LEGACY = {"-i": _IN, "-o": _OUT, "-s": "saddr", "-d": "daddr"}


def parse_iptables(text: str, *, program: str, family: str) -> Table:
    """Return the table `filter` as `iptables-legacy -S` prints it."""
    dropping: tuple[str, ...] = ()
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        words = shlex.split(line)
        if words == ["-P", "FORWARD", "DROP"]:
            dropping = ("FORWARD",)
        if words[:1] == ["-A"]:
            rules.setdefault(words[1], []).append(_iptables_rule(words[2:]))
    if _ends(rules.get("FORWARD", ())):
        dropping = ("FORWARD",)
    return Table(program, family, "filter", dropping, rules)


def _iptables_rule(words: Sequence[str]) -> Rule:
    verdict, matches = "", []
    for option, value in zip(words[::2], words[1::2], strict=False):
        if option in {"-j", "-g"}:
            verdict = _VERDICTS.get(value, value)
        elif option in _LEGACY:
            # A name that ends in "+" is the beginning of names.
            matches.append((_LEGACY[option], value[:-1] + "*" if value.endswith("+") else value))
        elif (option, value) != ("-m", "comment") and option not in _SAY_NOTHING:
            matches.append(("other", option))
    if len(words) % 2:  # a "!" or a flag: the pairs above may be wrong
        matches.append(("other", "!"))
    return Rule(verdict, tuple(matches))


def judge(tables: Iterable[Table], pools: Sequence[IPNetwork]) -> list[Finding]:
    """Return the chains that drop what pods send or get, beyond what their rules accept."""
    versions = {pool.version for pool in pools}
    return [
        _finding(table, chain)
        for table in tables
        if versions.intersection(_FAMILIES[table.family])
        for chain in table.dropping
        if not all(_accepts(table, chain, way, pools) for way in (_IN, _OUT))
    ]


def _accepts(table: Table, start: str, way: str, pools: Sequence[IPNetwork]) -> bool:
    """Tell whether a chain, or one to which it leads all packets, accepts all of pods one way."""
    seen, due = set(), [start]
    while due:
        chain = due.pop()
        if chain in seen:
            continue
        seen.add(chain)
        for rule in table.rules.get(chain, ()):
            if not _holds(rule, way, pools, versions=_FAMILIES[table.family]):
                continue
            if rule.verdict == "accept":
                return True
            due.append(rule.verdict)
    return False


def _holds(rule: Rule, way: str, pools: Sequence[IPNetwork], *, versions: Sequence[int]) -> bool:
    """Tell whether a rule holds for every packet from (in) or to (out) pods."""
    side = "saddr" if way == _IN else "daddr"
    wanted = [pool for pool in pools if pool.version in versions]
    for key, value in rule.matches:
        if key == way and value.endswith("*") and PODS.startswith(value[:-1]):
            continue
        if key == side and all(_covers(value, pool) for pool in wanted):
            continue
        return False
    return True


def _covers(text: str, pool: IPNetwork) -> bool:
    try:
        network = ip_network(text)
    except ValueError:
        return False
    is_inside: bool = network.version == pool.version and pool.subnet_of(network)  # type: ignore[arg-type]
    return is_inside


def _finding(table: Table, chain: str) -> Finding:
    if table.name == "firewalld":  # newer ones let nobody else write into it
        where = f"{table.family} {table.name} {chain}"
        repair = "systemctl disable --now firewalld  (it and a pod network both want the last word)"
    elif table.program == "nft":
        where = f"{table.family} {table.name} {chain}"
        repair = " && ".join(
            f"nft insert rule {where} {way} '\"{PODS}\"' accept" for way in (_IN, _OUT)
        )
    else:
        where = chain
        pods = f"{HOST_VETH_PREFIX}+"
        repair = " && ".join(
            f"{table.program} -I {chain} {way} {pods} -j ACCEPT" for way in ("-i", "-o")
        )
    what = f"chain {where} ({table.program}) drops what it forwards, and has no rule for pods"
    return Finding("forward-policy", Severity.ERROR, what, _WHY, repair)
