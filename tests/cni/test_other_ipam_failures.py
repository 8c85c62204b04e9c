"""What another IPAM plugin may do to us: hang, answer nonsense, and be asked in vain."""

import json
from pathlib import Path

import pytest

from pycni.cni import delegated
from pycni.cni import engine as verbs
from pycni.cni.main import Reply, parse_or_reply
from pycni.model.endpoints import EndpointState
from pycni.model.network import Address
from tests.cni.test_other_ipam import FULL, GIVES, Plugged, play, record, told


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
