"""`pycnictl migrate`: take this node over from Calico, in place, or give it back."""

import argparse
import os
from pathlib import Path

from pycni.check.survey import place_of
from pycni.cni.defaults import named_node
from pycni.config import DEFAULT_CONFIG, load_config
from pycni.ctl.agentlink import ask
from pycni.ctl.output import command
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import EXIT_PROBLEMS, WrongUsage
from pycni.datastore.opening import OpenDatastore, documents_of
from pycni.errors import InvalidInput, PycniError
from pycni.migrate.doing import Doing, Journal
from pycni.migrate.looking import Node, look_at_cluster, look_at_node
from pycni.migrate.plan import Agent, plan_migration, plan_return
from pycni.migrate.record import Migration, Stage
from pycni.migrate.steps import Plan, plan_text
from pycni.plan.iproute import protocol_number


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add migrate to a command line."""
    migrate = subparsers.add_parser(
        "migrate",
        help="take this node over from Calico, in place, or give it back",
        description="Shows the plan, and changes nothing unless --yes is said. Needs root; see"
        " docs/migration.md for the order of steps in a cluster.",
        epilog="example: sudo pycnictl migrate --from calico",
    )
    way = migrate.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", choices=["calico"], help="whose node it is now")
    way.add_argument("--back", action="store_true", help="give a migrated node back to Calico")
    what = migrate.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="only show the plan (the default)")
    what.add_argument("--yes", action="store_true", help="do what the plan says")
    migrate.add_argument("--node", default="", help="this node's name (default: as its agent's)")
    migrate.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="the agent's settings (%(default)s)"
    )
    migrate.add_argument(
        "--net-dir", type=Path, default=None, help="network configurations (/etc/cni/net.d)"
    )
    migrate.set_defaults(func=command(_migrate))


async def _migrate(args: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise InvalidInput("only root may look at a node's firewall and pods: use sudo")
    datastore = await open_datastore(args, is_read_only=True)
    try:
        return await (_back(args, datastore) if args.back else _there(args, datastore))
    finally:
        await datastore.close()


async def _there(args: argparse.Namespace, datastore: OpenDatastore) -> int:
    documents = documents_of(datastore)
    if documents is None:
        raise WrongUsage(
            "Calico's objects are in a cluster, and this datastore is a file: install pycni with"
            " --datastore kubernetes, or say --kubeconfig FILE"
        )
    node = _node(args)
    # Once: what pods come meanwhile may keep the agent busy for a moment.
    agent = _agent_of(node)

    async def make_plan() -> Plan:
        verdict = await look_at_cluster(documents)
        return plan_migration(await look_at_node(node, datastore, agent=agent), verdict)

    plan = await make_plan()
    print(plan_text(plan), flush=True)
    if idle := _why_idle(plan, Journal(node.state_dir).read(), node=node.name):
        print(f"\n{idle}")
        return 0
    if not args.yes or not plan.is_possible:
        return _conclude(plan, way="--from calico")
    await _doing(node, datastore).migrate(make_plan)
    print(f"\n{node.name} is pycni's; sudo pycnictl migrate --back gives it back")
    return 0


async def _back(args: argparse.Namespace, datastore: OpenDatastore) -> int:
    node = _node(args)
    migration = Journal(node.state_dir).need()

    async def make_plan() -> Plan:
        found = await look_at_node(node, datastore, agent=_agent_of(node))
        return plan_return(
            found, migration, files=frozenset(one.name for one in node.net_dir.iterdir())
        )

    plan = await make_plan()
    print(plan_text(plan), flush=True)
    if not args.yes or not plan.is_possible:
        return _conclude(plan, way="--back")
    await _doing(node, datastore).go_back(make_plan)
    print(f"\n{node.name} is Calico's again: let calico-node run here now")
    return 0


def _why_idle(plan: Plan, begun: Migration | None, *, node: str) -> str:
    """Return why a plan without steps is not carried out, or "" where it is, or has some.

    A node that never was Calico's must get no record of a migration: the way back would take its
    own pods' records away and delete the firewall that they need.
    """
    if plan.steps or not plan.is_possible:
        return ""
    if begun is None:
        return f"nothing of Calico's is on {node}: there is nothing to migrate"
    if begun.stage is Stage.DONE:
        return f"{node} is pycni's already; sudo pycnictl migrate --back  gives it back"
    return ""


def _conclude(plan: Plan, *, way: str) -> int:
    """Say how the plan is carried out; return the exit status."""
    if not plan.is_possible:
        print("\nnothing was changed, and nothing can be before what is named above is settled")
        return EXIT_PROBLEMS
    print(f"\nnothing was changed: sudo pycnictl migrate {way} --yes  does it")
    return 0


def _node(args: argparse.Namespace) -> Node:
    config = load_config(args.config)
    place = place_of(config, node=args.node or named_node(config.node))
    return Node(
        name=place.node,
        run_dir=Path(config.run_dir),
        state_dir=Path(config.state_dir),
        net_dir=args.net_dir or place.net_dir,
        route_protocol=protocol_number(config.route_protocol),
    )


def _agent_of(node: Node) -> Agent:
    """Ask this node's agent whether it serves."""
    if not (node.run_dir / "control.sock").exists():
        return Agent(is_running=False, complaint="pycni's agent doesn't run here: start it")
    try:
        answer = ask(node.run_dir, "status")
    except PycniError as exc:
        return Agent(is_running=False, complaint=str(exc))
    if answer["node"] != node.name:
        return Agent(complaint=f"the agent here is node {answer['node']}'s: name it by --node")
    if not answer["converged"]:
        return Agent(complaint="pycni's agent does not serve yet: see  pycnictl status")
    return Agent()


def _doing(node: Node, datastore: OpenDatastore) -> Doing:
    print("\ndone:", flush=True)
    return Doing(
        node,
        datastore,
        endpoints=node.open_endpoints(),
        journal=Journal(node.state_dir),
        documents=documents_of(datastore),
        say=lambda sentence: print(f"  {sentence}", flush=True),
    )
