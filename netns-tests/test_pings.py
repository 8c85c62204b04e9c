"""What the scenario tests know of a stream of pings is what ping said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import cluster
from pings import Loss, gaps_of, loss_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.netns

ANSWER = "64 bytes from 10.0.0.1: icmp_seq=%d ttl=63 time=0.1 ms\n"
ANSWERS = 3000  # some 160 KB: more than a pipe holds


def log_of(tmp_path: Path, *answered: int, summary: str = "") -> Path:
    log = tmp_path / "log"
    log.write_text("".join(ANSWER % number for number in answered) + summary)
    return log


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    log = log_of(tmp_path, 1, 2, 4, summary="5 packets transmitted, 3 received, 40% packet loss\n")

    loss = loss_of(log)

    assert (loss, loss.lost) == (Loss(5, (3, 5)), 2)


def test_the_last_requests_may_be_left_out_of_account(tmp_path: Path) -> None:
    summary = "7 packets transmitted, 4 received, 40% packet loss\n"

    assert loss_of(log_of(tmp_path, 1, 3, 4, 6, summary=summary), counted=5) == Loss(5, (2, 5))
    assert loss_of(log_of(tmp_path, 1, 3, 4, 6, summary=summary), counted=9) == Loss(7, (2, 5, 7))


def test_a_ping_without_an_end_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no summary of ping"):
        loss_of(log_of(tmp_path, 1, 2))


def test_the_last_request_of_an_ended_ping_may_be_under_way(tmp_path: Path) -> None:
    summary = "5 packets transmitted, 3 received, 40% packet loss\n"

    assert gaps_of(log_of(tmp_path, 1, 3, 4, summary=summary)) == Loss(4, (2,))


def test_an_ended_ping_without_any_answer_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no answer at all"):
        gaps_of(log_of(tmp_path, summary="5 packets transmitted, 0 received\n"))


def test_a_long_stream_is_not_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, done = tmp_path / "said", tmp_path / "done"
    said.write_text(
        "".join(ANSWER % number for number in range(1, ANSWERS))
        + f"{ANSWERS} packets transmitted, {ANSWERS - 1} received\n"
    )
    ping = tmp_path / "lab"
    ping.write_text(f"#!/bin/sh\ncat {said}\ntouch {done}\n")
    ping.chmod(0o755)
    monkeypatch.setattr(cluster, "LAB", str(ping))

    with cluster.Cluster("none").stream("node-0", "10.0.0.1", seconds=30) as losses:
        cluster.eventually(done.exists, within_s=20)

    assert losses == [Loss(ANSWERS, (ANSWERS,))]
