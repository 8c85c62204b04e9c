"""get, apply and delete of BGPFilters."""

from collections.abc import Callable

import pytest

from tests.unit.ctl.test_resources import Run, apply, database, run

__all__ = ["apply", "database", "run"]  # the fixtures, for pytest to find

FILTER = """
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: mine}
spec:
  exportV4:
    - {action: Accept, matchOperator: In, cidr: 192.168.0.0/16}
    - {action: Reject}
"""
PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack}
spec: {peerIP: 10.0.0.1, asNumber: 65001, filters: [mine]}
"""


def test_filters_of_a_file_are_written_before_the_peers_that_name_them(
    apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(f"{PEER}---{FILTER}") == 0

    assert capsys.readouterr().out.splitlines() == [
        "BGPFilter mine created",
        "BGPPeer rack created",
    ]


def test_a_filter_that_a_peer_names_is_not_deleted(
    run: Run, apply: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(f"{FILTER}---{PEER}") == 0
    capsys.readouterr()

    assert run("get", "filters") == 0
    assert run("delete", "filter", "mine") == 1
    assert run("delete", "peer", "rack") == 0
    assert run("delete", "filter", "mine") == 0

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "NAME  EXPORT-V4  IMPORT-V4  EXPORT-V6  IMPORT-V6",
        "mine  2          0          0          0",
        "BGPPeer rack deleted",
        "BGPFilter mine deleted",
    ]
    assert (
        "cannot delete BGPFilter mine: nothing would be exchanged any more with the peers that"
        " name it (rack); take its name out of them first" in captured.err
    )
