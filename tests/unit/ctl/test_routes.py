"""`pycnictl routes`: what an agent answers, as tables."""

from pycni.ctl.main import main
from tests.unit.ctl.conftest import Machine

ANSWER = {
    "wanted": ["192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink"],
    "missing": [],
    "conflicts": [],
    "paths": [],
    "withheld": [
        {
            "prefix": "192.168.39.192/26",
            "peer": "10.10.0.1",
            "why": "BGPFilter one rejects it (exportV4[0])",
        }
    ],
}


def said(agent: Machine) -> list[str]:
    agent.capsys.readouterr()
    assert main(["routes", "--run-dir", str(agent.run_dir)]) == 0
    return [" ".join(line.split()) for line in agent.capsys.readouterr().out.splitlines()]


def test_what_filters_keep_from_peers_is_told_with_its_reason(agent: Machine) -> None:
    agent.answers["routes"] = ANSWER

    assert said(agent) == [
        "WANTED IN THE KERNEL",
        "192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink yes",
        "",
        "OURS NOT ANNOUNCED TO BECAUSE",
        "192.168.39.192/26 10.10.0.1 BGPFilter one rejects it (exportV4[0])",
    ]


def test_without_filters_nothing_is_said_of_them(agent: Machine) -> None:
    agent.answers["routes"] = ANSWER | {"withheld": []}

    assert said(agent)[2:] == []
