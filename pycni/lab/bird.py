"""Others' routers in the lab, played by BIRD: the BGP engine that a cluster's routers often are."""

from collections.abc import Iterable

from pycni.lab import commands
from pycni.lab.layout import Layout
from pycni.topology.model import Topology, TopologyRouter
from pycni.topology.routers import Session, sessions_of

HOLD_TIME_S = 9


def configuration(router: TopologyRouter, sessions: Iterable[Session], *, log: str) -> str:
    """Return what BIRD is to do; a reflector keeps its own kernel's routes as they are."""
    lines = [
        f'log "{log}" all;',
        f"router id {router.address.ip};",
        "protocol device {}",
        "protocol kernel { ipv4 { export all; }; }" if router.cluster_id is None else "",
    ]
    lines += [_protocol(session) for session in sessions]
    return "\n".join(line for line in lines if line) + "\n"


def _protocol(session: Session) -> str:
    cluster = session.router.cluster_id if session.is_internal else None
    role = f" rr client; rr cluster id {cluster};" if cluster is not None else ""
    return (
        f"protocol bgp '{session.peer.name}' {{"
        f" local {session.local} as {session.router.as_number};"
        f" neighbor {session.remote} as {session.peer_as};"
        f" {'direct' if session.is_direct else 'multihop'};{role}"
        f" hold time {HOLD_TIME_S}; graceful restart yes;"
        " connect retry time 2; connect delay time 1; error wait time 1, 5;"
        " ipv4 { import all; export all; }; }"
    )


async def start(topology: Topology, *, layout: Layout) -> None:
    """Start every router; one whose configuration BIRD refuses raises `TryAgain`."""
    sessions = sessions_of(topology)
    for router in topology.routers:
        directory = layout.node(router.name)
        directory.mkdir(parents=True)
        own = [session for session in sessions if session.router is router]
        text = configuration(router, own, log=str(directory / "bird.log"))
        (directory / "bird.conf").write_text(text, encoding="utf-8")
        files = [f"-{key}{directory}/bird.{end}" for key, end in (("c", "conf"), ("s", "ctl"))]
        await commands.must("bird", *files, f"-P{directory}/bird.pid", place=router.name)
