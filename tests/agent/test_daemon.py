"""The whole agent in one process and one network namespace of its own: sockets, HTTP, BGP child.

Needs root for the namespace; everything else about the agent is tested over fakes.
"""

import array
import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from pycni.agent.claim import claim_run_dir
from pycni.agent.command import main
from pycni.agent.daemon import Agent
from pycni.cni.defaults import own_name
from pycni.config import AgentConfig
from pycni.ctl import main as ctl
from pycni.ctl.agentlink import ask
from pycni.datastore.sqlite import open_sqlite
from pycni.errors import InvalidInput, TryAgain
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.resources import IPPool, Node, TunnelMode
from pycni.model.resources_bgp import BGPConfiguration
from tests.agent.own_node import needs_root, node
from tests.waiting import until

METRICS_PORT = 19091
PATIENCE_S = 40
"""How long to wait for what takes a moment on an idle machine."""
__all__ = ["node"]  # the fixture, for pytest to find


def config(tmp_path: Path) -> AgentConfig:
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    return AgentConfig(
        node="node-0",
        node_address="10.10.7.20/20",
        node_address6="fd00:10::20/64",
        run_dir=str(tmp_path / "run"),
        state_dir=str(tmp_path / "state"),
        metrics_port=METRICS_PORT,
        hold_time_s=9,
    )


async def with_agent(tmp_path: Path, story: Callable[[Agent, Path], Awaitable[None]]) -> None:
    """Run an agent for as long as a story takes, and end it by SIGTERM."""
    settings = config(tmp_path)
    datastore = await open_sqlite(Path(settings.datastore_place))
    await datastore.create(
        IPPool("pool", ip_network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS, nat_outgoing=True)
    )
    await datastore.create(Node("node-9", ipv4=ip_interface("10.10.7.99/20")))
    agent = Agent(settings, node="node-0", datastore=datastore)
    agent.write_nodename()
    running = asyncio.create_task(agent.run())
    try:
        await eventually(lambda: bool(agent.reconciler.want.routes), running)
        await story(agent, Path(settings.run_dir))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, PATIENCE_S)


async def eventually(is_so: Callable[[], bool], running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            if running.done():
                running.result()
            await asyncio.sleep(0.01)


async def call(run_dir: Path, verb: str, pod: int, **more: object) -> tuple[int, dict[str, object]]:
    """Speak the relay's side of the CNI socket."""
    stdin = {"cniVersion": "1.1.0", "name": "net", "type": "pycni", "nodename": "node-0", **more}
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0",
    }
    packed = b"".join(f"{k}={v}\0".encode() for k, v in variables.items())
    message = len(packed).to_bytes(4, "big") + packed + json.dumps(stdin).encode()

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(run_dir / "cni.sock"))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pod]))]
            agent.sendmsg([message], rights)
            agent.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: agent.recv(65536), b""))

    answer = await asyncio.to_thread(talk)
    return answer[0], json.loads(answer[1:]) if answer[1:] else {}


async def get(path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", METRICS_PORT)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    head, _, body = text.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def metrics_say(line: str) -> None:
    """Wait until the CNI server has reported: it does so now and then only."""
    async with asyncio.timeout(PATIENCE_S):
        while line not in (await get("/metrics"))[1]:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)


async def wanted_say(run_dir: Path, words: str) -> None:
    """Wait until the agent has read the finished record: nobody waits for that after an ADD."""
    async with asyncio.timeout(PATIENCE_S):
        wanted = ""
        while words not in wanted:
            await asyncio.sleep(0.02)
            wanted = "\n".join((await asyncio.to_thread(ask, run_dir, "routes"))["wanted"])


async def no_interfaces(run_dir: Path) -> None:
    """Wait until the agent has heard that no pod's interface is there any more."""
    async with asyncio.timeout(PATIENCE_S):
        aliases = ["one at least"]
        while aliases:
            await asyncio.sleep(0.02)
            aliases = (await asyncio.to_thread(ask, run_dir, "endpoints"))["aliases"]


def ip_route(*selector: str) -> str:
    shown = ["ip", "route", "show", *selector]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


@needs_root
@pytest.mark.timeout(150)
def test_agent_serves_pods_and_says_how_it_is(
    node: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        status, result = await call(run_dir, "ADD", node)
        assert status == 0, result
        assert result["interfaces"][0]["mtu"] == 1480  # type: ignore[index]
        status, _ = await call(run_dir, "CHECK", node, prevResult=result)
        assert status == 0
        assert (await call(run_dir, "STATUS", node))[0] == 0
        await wanted_say(run_dir, "192.168.39.193 dev ")
        await agent.reconciler.settled()
        said = await asyncio.to_thread(ask, run_dir, "status")
        assert said["node"] == "node-0"
        assert said["endpoints"] == 1
        assert said["blocks"] == ["192.168.39.192/26"]
        assert (said["address"], said["address6"]) == ("10.10.7.20/20", "fd00:10::20/64")
        assert [p["state"] for p in said["peers"]] == ["down"]
        with pytest.raises(InvalidInput, match="known questions"):
            await asyncio.to_thread(ask, run_dir, "nonsense")
        for verb in ("status", "routes", "bgp peers", "bgp routes", "bgp watch --seconds 1"):
            arguments = [*verb.split(), "--run-dir", str(run_dir)]
            await asyncio.to_thread(ctl.main, arguments)
            await asyncio.to_thread(ctl.main, [*arguments, "-o", "json"])
        printed = capsys.readouterr().out
        assert "192.168.39.192/26" in printed
        assert "IPv6 address    fd00:10::20/64\n" in printed
        assert (await get("/healthz"))[0] == 200
        assert (await get("/nonsense"))[0] == 404
        await metrics_say('pycni_cni_requests_total{status="0",verb="ADD"} 1.0')
        status, _ = await call(run_dir, "GC", node, **{"cni.dev/valid-attachments": []})
        assert status == 0
        assert (await call(run_dir, "DEL", node))[0] == 0
        os.kill(os.getpid(), signal.SIGHUP)
        await agent.reconciler.settled()
        assert await asyncio.to_thread(ip_route, "192.168.39.193") == ""

    asyncio.run(with_agent(tmp_path, story))

    # The kernel is left as it is.
    assert "192.168.39.192/26" in ip_route("type", "blackhole")


@needs_root
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("node")
def test_status_says_what_keeps_sessions_from_being_accepted(tmp_path: Path) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        await agent.datastore.create(BGPConfiguration("node.node-0", listen_port=1179))
        await until(lambda: agent.speaker.trouble, within_s=PATIENCE_S)

        said = await asyncio.to_thread(ask, run_dir, "status")
        assert agent.speaker.trouble in said["problems"]
        assert "10.10.7.20, port 1179" in agent.speaker.trouble

    with socket.create_server(("10.10.7.20", 1179)):
        asyncio.run(with_agent(tmp_path, story))


@needs_root
@pytest.mark.timeout(150)
def test_leak_is_found_by_the_agents_records_and_released(
    node: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        async def ipam(*words: str) -> int:
            where = ["--datastore", str(agent.config.datastore_place), "ipam"]
            return await asyncio.to_thread(ctl.main, [*where, *words, "--run-dir", str(run_dir)])

        status, _ = await call(run_dir, "ADD", node)
        assert status == 0
        told = await asyncio.to_thread(ask, run_dir, "endpoints")
        assert (told["node"], told["debts"]) == ("node-0", [])
        assert [one["handle"] for one in told["records"]] == ["net.c1"]
        assert await ipam("check") == 0
        await wanted_say(run_dir, "192.168.39.193 dev ")
        capsys.readouterr()
        assert await ipam("explain", "192.168.39.193") == 0
        assert "192.168.39.193 dev cali" in capsys.readouterr().out
        agent.endpoints.remove(EndpointKey("net", "c1", "eth0"))
        assert await ipam("check") == 0  # the pod is there, and answers
        (host_end,) = {one["hostVeth"] for one in told["records"]}
        await asyncio.to_thread(subprocess.run, ["ip", "link", "del", host_end], check=False)
        await no_interfaces(run_dir)
        capsys.readouterr()
        assert await ipam("check", "-o", "json") == 3
        (tmp_path / "report.json").write_text(capsys.readouterr().out)
        assert await ipam("release", "--from-report", str(tmp_path / "report.json")) == 0
        assert await ipam("check") == 0
        damaged = agent.endpoints.directory / "0.json"
        damaged.write_text("{")
        assert await ipam("check") == 3
        assert f"cannot read {damaged}" in capsys.readouterr().out

    asyncio.run(with_agent(tmp_path, story))


@needs_root
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("node")
def test_status_names_a_session_that_stays_down(tmp_path: Path) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        arguments = ["status", "--run-dir", str(run_dir)]
        await until(lambda: agent.down_since, within_s=PATIENCE_S)  # the prober notes it
        now = agent.clock()
        for age, is_wrong in ((29.0, False), (31.0, True)):
            agent.down_since = dict.fromkeys(agent.down_since, now)
            agent.clock = lambda age=age: now + age  # type: ignore[misc]  # a clock of our own
            said = (await asyncio.to_thread(ask, run_dir, "status"))["problems"]
            assert (
                any("BGP session with node-9 (10.10.7.99) is down" in p for p in said) == is_wrong
            )
        assert await asyncio.to_thread(ctl.main, arguments) == 3

    asyncio.run(with_agent(tmp_path, story))


@needs_root
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("node")
def test_status_names_a_pod_whose_interface_is_gone(tmp_path: Path) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        key = EndpointKey("net", "c1", "eth0")
        record = WorkloadEndpoint(
            key=key,
            node="node-0",
            netns="/run/netns/c1",
            host_veth="calinowhere",
            handle_id="net.c1",
            state=EndpointState.READY,
            pod_namespace="default",
            pod_name="web",
        )
        agent.endpoints.put(record)
        await until(lambda: key in agent.facts.inputs.endpoints, within_s=PATIENCE_S)

        said = (await asyncio.to_thread(ask, run_dir, "status"))["problems"]

        wanted = "pod default/web has lost its interface calinowhere: delete the pod"
        assert any(problem.startswith(wanted) for problem in said)
        agent.endpoints.remove(key)

    asyncio.run(with_agent(tmp_path, story))


@needs_root
@pytest.mark.timeout(150)
@pytest.mark.usefixtures("node")
def test_status_names_a_strangers_route(tmp_path: Path) -> None:
    subprocess.run(
        ["ip", "route", "add", "192.168.39.192/26", "dev", "eth0", "proto", "static"], check=True
    )

    async def story(agent: Agent, run_dir: Path) -> None:
        await agent.reconciler.settled()
        said = await asyncio.to_thread(ask, run_dir, "status")
        assert any("somebody else's" in problem for problem in said["problems"]), said

    asyncio.run(with_agent(tmp_path, story))


def test_second_agent_in_one_run_directory_is_refused(tmp_path: Path) -> None:
    lock = claim_run_dir(tmp_path)

    with pytest.raises(TryAgain, match="an agent runs"):
        claim_run_dir(tmp_path)

    os.close(lock)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense: 1", "unknown key 'nonsense'"),
        ("hold_time_s: 1", "hold_time_s"),
        ("run_dir: here", "absolute path"),
        ("log_level: loud", "log_level"),
        ("node: [", "line 1, column 8: expected"),
        ("- a", "mapping"),
        ("node: 5", "type str"),
    ],
)
def test_bad_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)

    with pytest.raises(SystemExit) as end:
        main(["--config", str(path)])

    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_method_of_the_environment_is_looked_at_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "agent.yaml"
    settings.write_text(f"run_dir: {tmp_path}/run\nstate_dir: {tmp_path}/state\n")
    monkeypatch.setenv("IP6_AUTODETECTION_METHOD", "eth0")

    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(settings)])

    said = capsys.readouterr().err
    assert "IP6_AUTODETECTION_METHOD 'eth0' is no method; possible are first-found" in said
    assert list(tmp_path.iterdir()) == [settings]


@pytest.mark.parametrize(
    ("stated", "environment", "name"),
    [
        ("node-1", {"NODE_NAME": "node-2"}, "node-1"),
        ("", {"NODE_NAME": "node-2"}, "node-2"),
        ("", {"NODE_NAME": ""}, "my-host.example"),
        ("", {}, "my-host.example"),
    ],
)
def test_a_node_is_called_as_stated_or_as_its_pod_or_host_is(
    stated: str, environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "My-Host.example")

    assert own_name(stated, environment) == name


def test_a_name_that_no_node_can_have_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "agent.yaml"
    settings.write_text(f"run_dir: {tmp_path}/run\nstate_dir: {tmp_path}/state\n")
    monkeypatch.setenv("NODE_NAME", "node_0")

    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(settings)])

    assert "'node_0' can be no node's name: state one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [settings]
