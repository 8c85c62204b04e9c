"""Deletions of many pairs in one kernel transaction: all of ours, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pycni.kernel import unplug
from pycni.kernel.netlink import NetlinkSocket
from pycni.kernel.unplug import Groups, delete_verified

if TYPE_CHECKING:
    from conftest import Namespace

pytestmark = [pytest.mark.netns]

PAIRS = 40  # more than are asked for at once


def make_pairs(host: Namespace, count: int) -> None:
    host.sh(
        "".join(
            f"ip link add cali{n} type veth peer name pod{n}\n"
            f"ip link set cali{n} alias pycni:net/c{n}/eth0\n"
            for n in range(count)
        )
    )


def links(host: Namespace) -> set[str]:
    lines = host.run("ip", "-o", "link").stdout.splitlines()
    return {line.split(": ")[1].split("@")[0] for line in lines}


def test_many_are_deleted_at_once_and_each_is_told_apart(netns: Callable[[], Namespace]) -> None:
    host = netns()
    make_pairs(host, PAIRS)
    host.sh(
        "ip link set cali7 alias somebody-else\nip link del cali20\nip link set cali30 name lan"
    )
    targets = [(f"cali{n}", f"pycni:net/c{n}/eth0") for n in range(PAIRS)]
    heard: list[object] = []
    with host.entered(), NetlinkSocket() as socket:
        done = delete_verified(socket, targets, Groups(), heard.extend)

    assert [n for n, was_there in enumerate(done) if not was_there] == [7, 20]
    assert [at for at, index in enumerate(heard) if index is None] == [7, 20]
    assert links(host) == {"lo", "cali7", "pod7"}


def test_a_group_in_use_is_not_drawn(
    netns: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = netns()
    make_pairs(host, 3)
    host.sh(f"ip link add other group {unplug.FIRST_GROUP} type veth peer name far")
    drawn = iter([0, 5])
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(drawn))
    targets = [(f"cali{n}", f"pycni:net/c{n}/eth0") for n in range(3)]
    with host.entered(), NetlinkSocket() as socket:
        assert delete_verified(socket, targets, Groups()) == [True, True, True]

    assert list(drawn) == []
    assert links(host) == {"lo", "other", "far"}


def test_the_groups_in_use_are_listed_again_after_a_while(
    netns: Callable[[], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = netns()
    now = [100.0]
    drawn = [7]
    monkeypatch.setattr(unplug, "monotonic", lambda: now[0])
    monkeypatch.setattr(secrets, "randbelow", lambda _: drawn.pop(0))
    groups = Groups()
    with host.entered(), NetlinkSocket() as socket:
        assert groups.draw(socket) == unplug.FIRST_GROUP + 7
        host.sh(f"ip link add other group {unplug.FIRST_GROUP + 7} type veth peer name far")
        now[0] += 1.5
        drawn += [7, 8]
        assert groups.draw(socket) == unplug.FIRST_GROUP + 8
