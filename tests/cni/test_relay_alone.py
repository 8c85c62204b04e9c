"""The relay, in both its forms, where neither agent nor engine is: a host of the DaemonSet."""

import asyncio
import json
import time
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pycni.cni.results import SUPPORTED_VERSIONS
from pycni.endpoints import FileEndpoints
from pycni.model.endpoints import AssignedAddress, EndpointKey, PendingRelease
from tests.cni.conftest import Answer, Relay, install

NAMES = {"CNI_CONTAINERID": "c0ffee", "CNI_IFNAME": "eth0"}
KEY = EndpointKey("net", "c0ffee", "eth0")
VERBS = ["ADD", "CHECK", "DEL", "GC", "STATUS"]


@pytest.fixture
def alone(relay: Relay) -> Relay:
    """Return a relay without engine."""
    relay.engine.unlink()
    return relay


def config(tmp_path: Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON.
    places = {"run_dir": str(tmp_path / "run"), "state_dir": str(tmp_path / "state")}
    known = {"cniVersion": "1.1.0", "name": "net", "datastore_type": "kubernetes", **places}
    return {key: value for key, value in {**known, **more}.items() if value is not None}


def endpoints(tmp_path: Path) -> FileEndpoints:
    (tmp_path / "run").mkdir(exist_ok=True)
    return FileEndpoints(run_dir=tmp_path / "run", state_dir=tmp_path / "state")


def call(relay: Relay, document: dict[str, Any], verb: str, **names: str) -> Answer:
    return relay.run(document, timeout=20, **{"CNI_COMMAND": verb, **NAMES, **names})


def code(answer: Answer) -> int:
    return int(json.loads(answer.output)["code"])


def word(answer: Answer) -> str:
    return str(json.loads(answer.output)["msg"])


# --- what is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC"])
def test_what_needs_the_cluster_is_to_be_tried_again(
    alone: Relay, tmp_path: Path, verb: str
) -> None:
    answer = call(alone, config(tmp_path, cniVersion="1.0.0"), verb)

    assert answer.status == 1
    assert json.loads(answer.output) == {
        "cniVersion": "1.0.0",
        "code": 11,
        "msg": f"no agent answers in {tmp_path}/run, and nobody else on this node may use the"
        " cluster's objects: look at the agent (systemctl status pycni-agent, or its pod)",
    }
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("more", [{"datastore_type": "sqlite"}, {"datastore_type": None}])
@pytest.mark.parametrize("verb", VERBS)
def test_with_another_datastore_the_engine_is_missed(
    alone: Relay, tmp_path: Path, verb: str, more: dict[str, Any]
) -> None:
    answer = call(alone, config(tmp_path, **more), verb)

    assert (answer.status, code(answer)) == (1, 5)
    assert "run install.sh again" in word(answer)
    assert not (tmp_path / "state").exists()


def test_the_cluster_may_be_named_as_the_datastore_itself(alone: Relay, tmp_path: Path) -> None:
    said = config(tmp_path, datastore_type=None, datastore="kubernetes")

    assert code(alone.run(said)) == 11


def test_an_unknown_verb_is_nobodys(alone: Relay, tmp_path: Path) -> None:
    assert code(call(alone, config(tmp_path), "PAINT")) == 5


@pytest.mark.parametrize("said", ["1.0.0", "9.9.9", None])
def test_versions_are_told_whatever_the_datastore_is(alone: Relay, said: str | None) -> None:
    answer = alone.run({"cniVersion": said} if said else {}, CNI_COMMAND="VERSION")

    assert answer.status == 0
    assert json.loads(answer.output) == {
        "cniVersion": said or "0.1.0",
        "supportedVersions": list(SUPPORTED_VERSIONS),
    }


@pytest.mark.parametrize(
    ("said", "answered"),
    [("0.4.0", "0.4.0"), (None, "0.1.0"), ("9", "1.1.0"), ('0.1.0", "', "1.1.0")],
)
def test_an_error_is_of_the_callers_version(
    alone: Relay, tmp_path: Path, said: str | None, answered: str
) -> None:
    answer = alone.run(config(tmp_path, cniVersion=said))

    assert json.loads(answer.output)["cniVersion"] == answered


def test_an_engine_that_is_there_is_asked(relay: Relay, tmp_path: Path) -> None:
    assert call(relay, config(tmp_path), "DEL").is_engines


# --- STATUS -------------------------------------------------------------------------------------


def said_at_29_s(alone: Relay, tmp_path: Path, since: Path) -> Answer:
    """Return what STATUS says of trouble that began 29 s ago, asked and answered before 30."""
    for _ in range(20):
        noted = time.time() - 29
        since.write_text(f"{noted}")
        said = call(alone, config(tmp_path), "STATUS")
        if time.time() < noted + 30:
            return said
    raise AssertionError("no STATUS was answered within a second")


def test_status_complains_after_thirty_seconds(alone: Relay, tmp_path: Path) -> None:
    since = tmp_path / "run" / "trouble-since"

    first = call(alone, config(tmp_path), "STATUS")
    assert first == Answer(0, b"")
    assert abs(float(since.read_text()) - time.time()) < 60
    assert said_at_29_s(alone, tmp_path, since) == Answer(0, b"")
    since.write_text(f"{time.time() - 31}")  # as the engine writes it
    last = call(alone, config(tmp_path), "STATUS")

    assert (last.status, code(last)) == (1, 50)
    assert word(last).startswith("no ADD can work: no agent answers in ")


@pytest.mark.parametrize("text", ["", "soon", "1e99", "12 13"])
def test_when_trouble_began_is_noted_anew_where_it_can_not_be_read(
    alone: Relay, tmp_path: Path, text: str
) -> None:
    since = tmp_path / "run" / "trouble-since"
    since.parent.mkdir()
    since.write_text(text)

    assert call(alone, config(tmp_path), "STATUS") == Answer(0, b"")

    assert abs(float(since.read_text()) - time.time()) < 60


# --- DEL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ifname", "handle"), [("eth0", "net.c0ffee"), ("net1", "net.c0ffee.net1"), ('a"\\b', None)]
)
def test_a_del_is_journalled_as_the_engine_would(
    alone: Relay, tmp_path: Path, ifname: str, handle: str | None
) -> None:
    answer = alone.run(
        config(tmp_path), CNI_COMMAND="DEL", CNI_CONTAINERID="c0ffee", CNI_IFNAME=ifname
    )

    assert answer == Answer(0, b"")
    key = EndpointKey("net", "c0ffee", ifname)
    owed = PendingRelease(key, handle_id=handle or f"net.c0ffee.{ifname}")
    files = endpoints(tmp_path)
    assert files.get_pending(key) == owed
    (file,) = (tmp_path / "state" / "journal").iterdir()
    text = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    files.journal(owed)
    assert file.read_bytes() == text
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("length", [1, 40, 41, 47, 48, 49, 200, 3000])
def test_names_of_any_length_lead_to_the_engines_file(
    alone: Relay, tmp_path: Path, length: int
) -> None:
    container = "c" * length

    alone.run(config(tmp_path), CNI_COMMAND="DEL", CNI_CONTAINERID=container, CNI_IFNAME="eth0")

    key = EndpointKey("net", container, "eth0")
    assert endpoints(tmp_path).get_pending(key) == PendingRelease(key, f"net.{container}")


def test_what_is_owed_already_stays_as_it_is(alone: Relay, tmp_path: Path) -> None:
    files = endpoints(tmp_path)
    address = AssignedAddress(ip_interface("10.0.0.1/32"), 7)
    more = PendingRelease(KEY, handle_id="net.c0ffee", addresses=(address,))
    files.journal(more)

    for _ in range(2):
        assert call(alone, config(tmp_path), "DEL") == Answer(0, b"")

    assert files.pending() == [more]


def test_what_a_crash_left_of_an_entry_is_no_obstacle(alone: Relay, tmp_path: Path) -> None:
    files = endpoints(tmp_path)
    call(alone, config(tmp_path), "DEL")
    (file,) = (tmp_path / "state" / "journal").iterdir()
    file.rename(f"{file}.new")
    Path(f"{file}.new").write_text("half")

    assert call(alone, config(tmp_path), "DEL").status == 0

    assert [one.key for one in files.pending()] == [KEY]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_del_waits_for_whoever_has_the_endpoint_in_hand(alone: Relay, tmp_path: Path) -> None:
    files = endpoints(tmp_path)

    async def story() -> tuple[Answer, Answer]:
        async with files.lock(KEY, timeout_s=0):
            busy = await asyncio.to_thread(call, alone, config(tmp_path), "DEL")
        other = await asyncio.to_thread(call, alone, config(tmp_path), "DEL")
        return busy, other

    busy, other = asyncio.run(story())

    assert (busy.status, code(busy)) == (1, 11)
    assert word(busy).startswith("another request for net/c0ffee/eth0 is running")
    assert other == Answer(0, b"")


@pytest.mark.parametrize(
    ("changes", "names", "expected"),
    [
        ({}, {"CNI_CONTAINERID": "(unset)"}, 4),
        ({}, {"CNI_CONTAINERID": "../x"}, 4),
        ({}, {"CNI_CONTAINERID": "a/b"}, 4),
        ({}, {"CNI_IFNAME": "(unset)"}, 4),
        ({}, {"CNI_IFNAME": ".."}, 4),
        ({}, {"CNI_IFNAME": "eth0:1"}, 4),
        ({}, {"CNI_IFNAME": "sixteencharacter"}, 4),
        ({"name": None}, {}, 7),
        ({"name": "a b"}, {}, 7),
        ({"name": 7}, {}, 7),
        ({"state_dir": "here"}, {}, 7),
        ({"state_dir": 7}, {}, 7),
        ({"state_dir": ""}, {}, 7),
    ],
)
def test_a_del_that_is_malformed_is_refused_and_leaves_nothing(
    alone: Relay, tmp_path: Path, changes: dict[str, Any], names: dict[str, str], expected: int
) -> None:
    said = config(tmp_path, **changes)

    answer = call(alone, said, "DEL", **names)

    assert (answer.status, code(answer)) == (1, expected)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("blocked", ["run", "state"])
def test_a_del_that_can_not_be_kept_fails(alone: Relay, tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).write_text("no directory")

    answer = call(alone, config(tmp_path), "DEL")

    assert (answer.status, code(answer)) == (1, 5)
    place = {"run": "run/endpoints.lock", "state": "state/journal"}[blocked]
    assert word(answer) == (
        f"no agent answers, and {tmp_path}/{place} can't be written for it: Not a directory"
    )


# --- both alike ---------------------------------------------------------------------------------


texts = st.sampled_from(
    ["kubernetes", "sqlite", "", "a", "a.b", "/", "1.1.0", "1.0.0", 'x"\\\n', "é"]
)
values = texts | st.none() | st.integers() | st.booleans() | st.lists(texts, max_size=1)
said = st.fixed_dictionaries(
    {},
    optional={
        "cniVersion": values,
        "name": values,
        "datastore_type": st.just("kubernetes") | values,
        "datastore": values,
        "other": st.dictionaries(st.sampled_from(["name", "datastore_type"]), values),
    },
)


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Relay, Relay]:
    both = (install(request, tmp_path, "python"), install(request, tmp_path, "c"))
    for one in both:
        one.engine.unlink()
    return both


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(
    document=said, verb=st.sampled_from([*VERBS, "VERSION"]), ifname=st.sampled_from(["eth0", 'a"'])
)
@example(document={"datastore_type": "kubernetes", "name": "net"}, verb="DEL", ifname="eth0")
def test_both_relays_do_the_same_alone(
    pair: tuple[Relay, Relay],
    tmp_path_factory: pytest.TempPathFactory,
    document: dict[str, Any],
    verb: str,
    ifname: str,
) -> None:
    outcomes = []
    place = tmp_path_factory.mktemp("alone")
    for one in pair:
        places = {"run_dir": str(place / "run"), "state_dir": str(place / "state")}
        answer = call(one, {**document, **places}, verb, CNI_IFNAME=ifname)
        kept = {path.name: path.read_text() for path in (place / "state").rglob("*.json")}
        outcomes.append((answer.status, answer.output, kept))
        for path in (place / "state").rglob("*.json"):
            path.unlink()

    assert outcomes[0] == outcomes[1]
