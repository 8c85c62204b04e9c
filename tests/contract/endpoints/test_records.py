"""Endpoint records, as two engines share them."""

import os
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints
from pycni.errors import DatastoreUnusable
from pycni.model.endpoints import (
    AssignedAddress,
    Delegation,
    EndpointKey,
    EndpointState,
    NetnsSight,
    WorkloadEndpoint,
)
from tests.contract.endpoints.processes import forked
from tests.contract.endpoints.samples import DEBT, KEY, RECORD, Directories, keyed, other


def test_a_record_is_read_as_it_was_written(endpoints: FileEndpoints) -> None:
    endpoints.put(RECORD)

    assert endpoints.get(KEY) == RECORD


def test_an_absent_record_is_none(endpoints: FileEndpoints) -> None:
    assert endpoints.get(KEY) is None


def test_a_record_is_replaced(endpoints: FileEndpoints) -> None:
    endpoints.put(replace(RECORD, state=EndpointState.INTENT, addresses=()))

    endpoints.put(RECORD)

    assert endpoints.get(KEY) == RECORD
    assert endpoints.list() == [RECORD]


def test_records_are_listed_in_the_order_of_their_keys(endpoints: FileEndpoints) -> None:
    for name in "bca":
        endpoints.put(replace(RECORD, key=keyed(name)))

    assert [r.key.container_id for r in endpoints.list()] == ["a", "b", "c"]


def test_a_removed_record_is_gone_and_removing_it_again_is_success(
    endpoints: FileEndpoints,
) -> None:
    endpoints.put(RECORD)

    endpoints.remove(KEY)
    endpoints.remove(KEY)

    assert endpoints.get(KEY) is None


def test_another_process_sees_the_same(endpoints: FileEndpoints, directories: Directories) -> None:
    endpoints.put(RECORD)

    assert other(directories).get(KEY) == RECORD


def test_a_key_longer_than_a_file_name_is_kept(endpoints: FileEndpoints) -> None:
    key = EndpointKey("n" * 200, "c" * 400, "eth0")

    endpoints.put(replace(RECORD, key=key))

    assert endpoints.get(key) == replace(RECORD, key=key)


def test_a_long_record_is_read_whole(endpoints: FileEndpoints) -> None:
    long = replace(RECORD, pod_name="x" * 200_000)

    endpoints.put(long)

    assert endpoints.get(KEY) == long


def test_a_reader_never_sees_half_a_record(
    endpoints: FileEndpoints, directories: Directories, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"

    def numbered(number: int) -> WorkloadEndpoint:
        return replace(RECORD, mtu=number, pod_name="x" * (number % 500))

    def write() -> None:
        writer = other(directories)
        for number in range(100_000):
            writer.put(numbered(number))
            if enough.exists():
                return

    seen: set[WorkloadEndpoint] = set()
    with forked(write) as child:
        while len(seen) < 200 and child.is_running():
            if (record := endpoints.get(KEY)) is not None:
                seen.add(record)
        enough.touch()
        status = child.wait()

    assert (status, len(seen)) == (0, 200)
    assert [r for r in seen if r != numbered(r.mtu)] == []


def test_only_the_owner_can_look(endpoints: FileEndpoints, directories: Directories) -> None:
    endpoints.put(RECORD)
    endpoints.journal(DEBT)

    paths = [p for d in directories for p in d.rglob("*")]
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_file()} == {"0o600"}
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir()} == {"0o700"}


DAMAGES = {
    "empty": "",
    "half": '{"key": {',
    "list": "[]",
    "lacking": "{}",
    "state": "READY-ish",
    "address": "300.0.0.1/32",
}


def test_those_that_can_be_read_are_told_apart_from_the_damaged(endpoints: FileEndpoints) -> None:
    for name in "bca":
        endpoints.put(replace(RECORD, key=keyed(name)))
    assert endpoints.readable() == (endpoints.list(), [])
    damaged = endpoints.directory / endpoints.file_name(keyed("b"))
    damaged.write_text("{")

    records, (complaint,) = endpoints.readable()

    assert [r.key.container_id for r in records] == ["a", "c"]
    assert str(damaged) in complaint
    with pytest.raises(DatastoreUnusable):
        endpoints.list()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_an_error_that_names_the_file(
    endpoints: FileEndpoints, damage: str
) -> None:
    endpoints.put(RECORD)
    (path,) = endpoints.directory.iterdir()
    text = {
        "state": path.read_text().replace('"ready"', '"READY-ish"'),
        "address": path.read_text().replace("192.168.39.193/32", "300.0.0.1/32"),
    }.get(damage, DAMAGES[damage])
    path.write_text(text)

    for look in (lambda: endpoints.get(KEY), endpoints.list):
        with pytest.raises(DatastoreUnusable, match=str(path)):
            look()


def test_a_failed_writing_leaves_the_old_record_and_nothing_else(
    endpoints: FileEndpoints,
) -> None:
    endpoints.put(RECORD)

    with pytest.raises(TypeError):
        endpoints.put(replace(RECORD, mtu={1}))  # type: ignore[arg-type]  # no JSON

    assert endpoints.get(KEY) == RECORD
    assert len(list(endpoints.directory.iterdir())) == 1


@pytest.mark.parametrize(("mtu", "later_ns"), [(1400, 1), (1, 0)], ids=["time", "size"])
def test_the_others_writing_is_not_its_own_even_with_the_same_inode(
    endpoints: FileEndpoints, tmp_path: Path, mtu: int, later_ns: int
) -> None:
    """A file system gives a number again, soon or never: here the other writes into the file."""
    endpoints.put(RECORD)
    path = endpoints.directory / endpoints.file_name(KEY)
    before = path.stat()
    elsewhere = FileEndpoints(run_dir=tmp_path / "elsewhere", state_dir=tmp_path / "elsewhere")
    elsewhere.put(replace(RECORD, mtu=mtu))

    path.write_bytes((elsewhere.directory / path.name).read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + later_ns))

    after = path.stat()
    assert after.st_ino == before.st_ino
    assert (after.st_mtime_ns == before.st_mtime_ns) != (after.st_size == before.st_size)
    assert endpoints.get(KEY) == replace(RECORD, mtu=mtu)
    assert endpoints.readable() == ([replace(RECORD, mtu=mtu)], [])


def test_the_latest_record_is_found_whoever_wrote_it(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.put(RECORD)
    writer = other(directories)
    for mtu in range(1, 10):
        writer.put(replace(RECORD, mtu=mtu))
        assert endpoints.get(KEY) == replace(RECORD, mtu=mtu)
        endpoints.put(replace(RECORD, mtu=100 + mtu))
        assert writer.get(KEY) == endpoints.get(KEY) == replace(RECORD, mtu=100 + mtu)

    writer.remove(KEY)

    assert endpoints.get(KEY) is None


def test_what_was_written_here_is_not_read_again(endpoints: FileEndpoints) -> None:
    endpoints.put(RECORD)

    assert endpoints.get(KEY) is RECORD
    ((found,), _) = endpoints.readable()
    assert found is RECORD


def test_ever_so_many_records_are_found(endpoints: FileEndpoints) -> None:
    for number in range(1030):
        endpoints.put(replace(RECORD, key=keyed(f"c{number}")))

    for name in ("c0", "c1029"):
        assert endpoints.get(keyed(name)) == replace(RECORD, key=keyed(name))


def test_what_other_plugins_have_to_do_with_a_record_is_read_as_it_was_written(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    address = AssignedAddress(
        ip_interface("192.168.39.194/26"), 7, gateway=ip_address("192.168.39.193")
    )
    delegation = Delegation("static", "/opt/cni/bin", "IP=10.0.0.9", "{}", "{}")
    record = replace(
        RECORD,
        host_veth="",
        addresses=(address,),
        sight=NetnsSight(7, 8),
        delegation=delegation,
    )

    endpoints.put(record)

    assert other(directories).get(KEY) == record
