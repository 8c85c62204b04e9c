"""Clock, resolver, API server."""

import pytest

from pycni.check import services


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (1000.0, None),
        (1002.9, None),
        (998.1, None),
        (1004.0, "4 s ahead of"),
        (990.0, "10 s behind"),
    ],
)
def test_a_clock_may_differ_by_two_seconds_and_what_http_leaves_out(
    ours: float, words: str | None
) -> None:
    found = services.judge_clock(ours=ours, servers=1000.0, latency_s=0.0)

    assert len(found) == (words is not None)
    assert all(words is None or words in one.what for one in found)


def test_a_slow_answer_makes_the_comparison_loose() -> None:
    assert services.judge_clock(ours=1004.0, servers=1000.0, latency_s=3.0) == []


def test_an_api_server_that_takes_long_is_found() -> None:
    assert services.judge_api(latency_s=0.5) == []
    assert "after 2.5 s" in services.judge_api(latency_s=2.5)[0].what
    assert services.silent_api("cannot GET /version").what == "cannot GET /version"


def test_missing_definitions_are_named_with_the_command() -> None:
    assert services.missing_kinds([]) == []
    (found,) = services.missing_kinds(["IPPool", "IPAMBlock"])
    assert found.what == "the cluster doesn't know IPPool, IPAMBlock"
    assert "deploy/crds.yaml" in found.repair


def test_the_first_three_name_servers_count() -> None:
    text = """\
# nameserver 9.9.9.9
search example.org
nameserver 10.0.0.1
nameserver
nameserver nonsense
nameserver fd00::1
options edns0
nameserver 10.0.0.2
nameserver 10.0.0.3
"""
    assert services.parse_resolv_conf(text) == ["10.0.0.1", "fd00::1", "10.0.0.2"]


@pytest.mark.parametrize(
    ("answered", "severities"),
    [
        ({"a": True}, []),
        ({"a": True, "b": False}, ["warning"]),
        ({"a": False, "b": False}, ["error"]),
        ({}, ["error"]),
    ],
)
def test_one_name_server_must_answer_and_all_should(
    answered: dict[str, bool], severities: list[str]
) -> None:
    found = services.judge_dns(answered, path="/etc/resolv.conf")

    assert [one.severity.value for one in found] == severities
