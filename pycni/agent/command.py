"""The agent's command line: read the configuration, be the only one, run."""

import argparse
import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pycni
from pycni.agent.claim import claim_run_dir
from pycni.agent.daemon import Agent
from pycni.cni.defaults import own_name
from pycni.collector import spare_collector
from pycni.config import DEFAULT_CONFIG, AgentConfig, load_config, with_environment
from pycni.datastore.opening import open_datastore
from pycni.errors import InvalidInput, PycniError
from pycni.logs import configure_logging

_log = logging.getLogger(__name__)


async def amain(config: AgentConfig, *, node: str) -> None:
    """Open the datastore and run the agent."""
    datastore = await open_datastore(config.datastore_place, kubeconfig=config.kubeconfig)
    agent = Agent(config, node=node, datastore=datastore)
    agent.write_nodename()
    await agent.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="pycni-agent",
        description="Program this node's pod routes, exchange them by BGP, serve CNI requests.",
        epilog="example: pycni-agent --config /etc/pycni/agent.yaml",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration (YAML)")
    parser.add_argument("--version", action="version", version=f"pycni {pycni.__version__}")
    arguments = parser.parse_args(argv)
    try:
        config = with_environment(load_config(arguments.config), os.environ)
        node = own_name(config.node)
    except InvalidInput as exc:
        parser.error(str(exc))
    configure_logging(config.log_level)
    if os.geteuid() != 0:
        parser.error(
            "the agent programs routes: run it as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
        )
    try:
        Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = claim_run_dir(Path(config.run_dir))
        spare_collector()
        asyncio.run(amain(config, node=node))
        os.close(lock)
    except PycniError as exc:
        _log.error("the agent can't run", extra={"reason": str(exc)})
        return 1
    return 0
