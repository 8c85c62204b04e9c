"""`pycnictl cluster`: prepare a Kubernetes cluster, and hand out its agents' credentials."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.ctl.files import read_input, source_name
from pycni.ctl.output import command
from pycni.ctl.store import add_datastore_arguments, kubeconfig_of, open_datastore
from pycni.ctl.usage import WrongUsage
from pycni.datastore import opening
from pycni.errors import InvalidInput

if TYPE_CHECKING:
    from pycni.datastore.kubernetes_setup import Setup


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group to a command line."""
    group = subparsers.add_parser(
        "cluster",
        help="prepare a Kubernetes cluster, as its administrator",
        description="install.sh does all of this on a control-plane node.",
    )
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB")
    admin = "pycnictl --kubeconfig /etc/kubernetes/admin.conf cluster"
    apply = verbs.add_parser(
        "apply",
        help="bring definitions and rights about",
        description="Definitions that another has made, as Calico's installer does, are kept.",
        epilog=f"example: {admin} apply -f deploy/crds.yaml -f deploy/rbac.yaml"
        " -f deploy/admission.yaml",
    )
    apply.add_argument(
        "-f", dest="filenames", metavar="FILE", action="append", required=True, help="YAML"
    )
    apply.set_defaults(func=command(_apply))
    kubeconfig = verbs.add_parser(
        "kubeconfig",
        help="print a kubeconfig for agents",
        description=(
            "It holds a token of the service account kube-system/pycni-agent, which lasts until its"
            " Secret is deleted. Who has it can rewrite the books of addresses: keep it like a key."
        ),
        epilog=f"example: {admin} kubeconfig >kubeconfig",
    )
    kubeconfig.set_defaults(func=command(_kubeconfig))
    subnets = verbs.add_parser(
        "subnets",
        help="print the pods' subnets, as kubeadm was told them",
        epilog=f"example: {admin} subnets",
    )
    subnets.set_defaults(func=command(_subnets))
    for parser in (apply, kubeconfig, subnets):
        add_datastore_arguments(parser)


@asynccontextmanager
async def _setup(args: argparse.Namespace) -> "AsyncIterator[Setup]":
    with opening.needing_client():
        from pycni.datastore.kubernetes_api import Access
        from pycni.datastore.kubernetes_setup import Setup
    named = kubeconfig_of(args)
    setup = Setup(Access(Path(named) if named else None))
    await setup.connect()
    try:
        yield setup
    finally:
        await setup.close()


async def _apply(args: argparse.Namespace) -> int:
    from pycni.yamltext import read_documents

    documents = []
    for filename in args.filenames:
        source = source_name(filename)
        for document in read_documents(read_input(filename), source=source):
            if not isinstance(document, dict):
                raise InvalidInput(f"{source}: every document must be an object")
            documents.append(document)
    async with _setup(args) as setup:
        for line in await setup.apply(documents):
            print(line)
    return 0


async def _kubeconfig(args: argparse.Namespace) -> int:
    import yaml

    async with _setup(args) as setup:
        print(yaml.safe_dump(await setup.agents_kubeconfig(), sort_keys=False), end="")
    return 0


async def _subnets(args: argparse.Namespace) -> int:
    datastore = await open_datastore(args)
    try:
        pod_subnets = opening.pod_subnets_of(datastore)
        if pod_subnets is None:
            raise WrongUsage("the datastore is a file: name a cluster by --kubeconfig")
        for subnet in await pod_subnets():
            print(subnet)
    finally:
        await datastore.close()
    return 0
