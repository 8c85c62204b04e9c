"""What another IPAM plugin may do to us: hang, answer nonsense, and be asked in vain."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from pycni.cni import delegated
from pycni.cni import engine as verbs
from pycni.cni.main import Reply, parse_or_reply
from pycni.model.endpoints import EndpointState
from pycni.model.network import Address
from tests.cni.test_other_ipam import ANSWER, FULL, GIVES, Plugged, play, record, told


def test_an_address_that_could_not_be_given_back_in_time_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegated, "DEADLINE_S", 0.6)
    monkeypatch.setattr(verbs, "WORK_TIMEOUT_S", 1.0)

    async def story(made: Plugged) -> None:
        made.script('[ "$CNI_COMMAND" = ADD ] && touch "$0.held"\nexec sleep 5')

        code, _ = told(await made.ask("ADD"))

        assert (code, made.held) == (11, True)
        assert record(made).state is EndpointState.INTENT
        made.script(GIVES)
        assert (await made.ask("DEL")).status == 0
        assert not made.held
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0/0",
        "127.0.0.1/8",
        "224.0.0.5/24",
        "255.255.255.255/32",
        "169.254.1.1/16",
        "10.10.7.20/20",
        "::/64",
        "fe80::1/64",
        "ff02::5/64",
    ],
)
def test_an_address_that_no_pod_may_have_is_refused(tmp_path: Path, address: str) -> None:
    async def story(made: Plugged) -> None:
        made.node.kernel.add_address(Address("eth0", made.node.address))
        made.script(GIVES.replace("10.77.0.2/24", address))

        code, text = told(await made.ask("ADD"))

        assert code == 102
        assert "gave" in text or "no result" in text
        assert not made.held
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_a_list_of_pairs_is_no_result(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        pairs = json.dumps([["ips", [{"address": "10.77.0.2/24"}]]])
        made.script(f"[ $CNI_COMMAND = ADD ] || exit 0\necho '{pairs}'")

        code, text = told(await made.ask("ADD"))

        assert code == 102
        assert "it is no JSON object" in text

    play(tmp_path, story)


def test_gc_asks_a_plugin_that_fails_only_once(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.script(
            '[ "$CNI_COMMAND" = ADD ] || exit 0\n'
            "own=$(echo $CNI_CONTAINERID | tr abc 234)\n"
            'echo "{\\"ips\\": [{\\"address\\": \\"10.77.0.$own/24\\"}]}"'
        )
        for container in ("a", "b", "c"):
            added = await made.node.cni(
                "ADD",
                container,
                config={"ipam": {"type": "other-ipam"}},
                variables={"CNI_PATH": str(made.path.parent)},
            )
            assert added.status == 0
        made.script(f"[ $CNI_COMMAND = DEL ] || exit 0\n{FULL}")

        code, text = told(await made.ask("GC", **{"cni.dev/valid-attachments": []}))

        assert code == 11
        assert made.calls.count("DEL") == 1
        assert text.count("was not asked, since it has just failed") == 2
        assert len(made.node.endpoints.list()) == 3

    play(tmp_path, story)


def test_half_a_surrogate_pair_is_refused_and_not_handed_on() -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "a",
        "CNI_NETNS": "/x",
        "CNI_IFNAME": "eth0",
    }
    stdin = b'{"cniVersion":"1.0.0","name":"a","x":"\xed\xa0\x80","ipam":{"type":"other-ipam"}}'

    reply = parse_or_reply(environment, stdin)

    assert isinstance(reply, Reply)
    code, text = told(reply)
    assert code == 6
    assert "can't be handed to other-ipam" in text


NO_RESULT = [
    ("echo nothing", "answered ADD with no result"),
    ("echo '[7]'", "answered ADD with no result"),
    ("echo 7", "answered ADD with no result"),
    (
        "echo '{\"ips\": [{}]}'",
        "answered ADD with no result: None is no address with a prefix length",
    ),
    ("echo '{}'", "answered ADD without an address"),
    ("exit 3", "ended with status 3, and said no error"),
    ("echo '[]'; exit 1", "ended with status 1, and said no error"),
    ("kill -9 $$", "ended with status -9"),
    ("yes", "printed over 1048576 bytes, and was ended"),
]


@pytest.mark.parametrize(("script", "complaint"), NO_RESULT)
def test_an_answer_that_is_none_is_refused(tmp_path: Path, script: str, complaint: str) -> None:
    async def story(made: Plugged) -> None:
        made.script(f'[ "$CNI_COMMAND" = ADD ] || exit 0\n{script}')

        code, text = told(await made.ask("ADD"))

        assert code == 102
        assert complaint in text
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_try_again_stays_that(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.script(f"[ $CNI_COMMAND = ADD ] || exit 0\n{FULL}")

        code, text = told(await made.ask("ADD"))

        assert (code, text) == (11, f"ADD by {made.path} failed: full (really)")

    play(tmp_path, story)


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 & exit 0"])
def test_who_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegated, "DEADLINE_S", 0.3)

    async def story(made: Plugged) -> None:
        made.script(f'[ $CNI_COMMAND = ADD ] || exit 0\necho $$ >"$0.pid"\n{script}')
        began = time.monotonic()

        code, text = told(await made.ask("ADD"))

        assert code == 11
        assert "took over 0.3 s, and was ended: try again" in text
        assert time.monotonic() - began < 30
        group = int(made.path.with_name("other-ipam.pid").read_text())
        assert living_in(group) == []

    play(tmp_path, story)


def living_in(group: int) -> list[str]:
    """Return the processes of a group that have not ended (a zombie has)."""
    words = ["ps", "-eo", "pgid=,stat=,args="]
    listed = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [args for pgid, state, args in rows if int(pgid) == group and state[0] != "Z"]


def test_input_that_nobody_reads_is_no_failure(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.script(f"exec <&-\necho '{ANSWER}'")

        assert (await made.ask("ADD", padding="x" * 500_000)).status == 0

    play(tmp_path, story)
