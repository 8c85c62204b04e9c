"""Where the far end of a pair is, as the kernel tells it."""

import struct
from pathlib import Path

import pytest

from pycni.kernel import wire_link
from pycni.kernel.wire import u32
from pycni.kernel.wire_link import FarEnd
from pycni.migrate import podends

IFINFOMSG = struct.pack("=BxHiII", 0, 1, 5, 0, 0)
RTGENMSG = b"\0\0\0\0"


def test_a_pair_tells_its_far_ends_index_and_namespace() -> None:
    body = IFINFOMSG + u32(5, 7) + u32(37, 3)

    assert wire_link.read_far_end(body) == FarEnd(7, 3)
    assert wire_link.read_far_end(IFINFOMSG + u32(5, 7)) is None


def test_a_namespace_to_which_no_link_leads_has_no_number() -> None:
    assert wire_link.get_netns_id(9).type == 90
    assert wire_link.read_netns_id(RTGENMSG + u32(1, 3)) == 3
    assert wire_link.read_netns_id(RTGENMSG + u32(1, 0xFFFFFFFF)) is None


def test_what_is_no_namespace_has_no_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "no-namespace").write_text("")
    (tmp_path / "processes" / "1").mkdir(parents=True)
    (tmp_path / "processes" / "self").mkdir()
    monkeypatch.setattr(podends, "NAMED", (tmp_path / "named", tmp_path / "none"))
    monkeypatch.setattr(podends, "PROCESSES", tmp_path / "processes")

    assert podends.find_ends() == {}


def test_an_interface_that_is_not_there_gets_no_name() -> None:
    assert not podends.name_end("cali0123456789a", alias="a", expected=("",))
    assert not podends.name_end("lo", alias="a", expected=("",))
