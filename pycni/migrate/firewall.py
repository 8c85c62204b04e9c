"""Take Calico's rules out of a firewall: of what `iptables-save` says, what `-restore` has to do.

Pure.  Calico's chains drop packets of pods' interfaces that they don't know, and nobody teaches
them any more.  One restore is one transaction for each table, so no packet meets half of it.
"""

import re
from collections.abc import Iterable

_PREFIX = "cali-"
_CHAIN = re.compile(r":(\S+) ")
_RULE = re.compile(r"-A (\S+) (.*)")
_OURS = re.compile(r"(?:^|\s)(?:-j|-g) cali-|--comment \"?cali:")
NFT_TABLE = "calico"
"""What Calico's own tables are called, where it uses nftables without iptables."""


def removal_of(saved: str) -> str:
    """Return the input of `iptables-restore --noflush` that removes Calico's part; "" for none."""
    parts = []
    table, chains, jumps = "", list[str](), list[str]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, chains, jumps = line, [], []
        elif line == "COMMIT" and (chains or jumps):
            flushed = [f":{chain} - [0:0]" for chain in chains]
            dropped = [f"-X {chain}" for chain in chains]
            parts += [table, *flushed, *jumps, *dropped, line]
        elif (match := _CHAIN.match(line)) and match[1].startswith(_PREFIX):
            chains.append(match[1])
        elif (match := _RULE.match(line)) and _is_calicos(match[1], match[2]):
            jumps.append(f"-D {match[1]} {match[2]}")
    return "".join(f"{line}\n" for line in parts)


def _is_calicos(chain: str, rule: str) -> bool:
    """Tell whether a rule in somebody else's chain is Calico's."""
    return not chain.startswith(_PREFIX) and _OURS.search(rule) is not None


def chains_in(removal: str) -> int:
    """Return how many chains a removal takes out."""
    return sum(line.startswith("-X ") for line in removal.splitlines())


def nft_tables_of(listing: str) -> list[str]:
    """Return Calico's tables in what `nft list tables` prints, as "family name"."""
    found: Iterable[list[str]] = (line.split() for line in listing.splitlines())
    return [
        f"{words[1]} {words[2]}"
        for words in found
        if len(words) == 3 and words[0] == "table" and words[2] == NFT_TABLE
    ]
