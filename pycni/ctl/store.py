"""The datastore that a command works on."""

import argparse
import os
from pathlib import Path

from pycni.config import DEFAULT_CONFIG, KUBERNETES, AgentConfig, load_config
from pycni.ctl.output import print_note, reason_of
from pycni.ctl.usage import WrongUsage
from pycni.datastore import opening
from pycni.datastore.opening import OpenDatastore
from pycni.datastore.sqlite import DEFAULT_PATH
from pycni.errors import DatastoreUnusable, InvalidInput
from pycni.model.services import ServiceSources


def add_datastore_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the datastore be named before a verb, or behind it; said there, it holds."""
    # No defaults: those behind the verb would overrule what stands before it.
    parser.add_argument(
        "--datastore",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the embedded datastore ({DEFAULT_PATH}), or 'kubernetes' for the cluster's objects",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="how to reach the cluster (KUBECONFIG, ~/.kube/config); means --datastore kubernetes",
    )


async def open_datastore(args: argparse.Namespace, *, is_read_only: bool = False) -> OpenDatastore:
    """Open the datastore that the command line names, or else that of this host's agent."""
    kubeconfig = getattr(args, "kubeconfig", None)
    named = getattr(args, "datastore", None if kubeconfig is None else KUBERNETES)
    if "" in (named, kubeconfig):
        # An unset variable of a script must not mean the machine's own datastore.
        empty = "--datastore" if named == "" else "--kubeconfig"
        raise WrongUsage(f"{empty} is empty: name a file, or leave it out")
    if named is None:
        named = _agents().datastore_place
    if named == KUBERNETES:
        return await opening.open_datastore(KUBERNETES, kubeconfig=kubeconfig_of(args))
    if kubeconfig is not None:
        raise WrongUsage("--kubeconfig is for --datastore kubernetes: leave one of them out")
    return await _open_file(Path(named), is_read_only)


def kubeconfig_of(args: argparse.Namespace) -> str:
    """Return what the command line names, or where kubectl would look, or the agent's.

    "" where there is none of these, as in a pod.
    """
    usual = Path.home() / ".kube" / "config"
    named: str = getattr(args, "kubeconfig", "") or os.environ.get("KUBECONFIG", "")
    return named or (str(usual) if usual.exists() else _agents().kubeconfig)


def _agents() -> AgentConfig:
    """Return the settings of this host's agent; all defaults, where we may not read them."""
    try:
        return load_config(DEFAULT_CONFIG)
    except InvalidInput as exc:
        if isinstance(exc.__cause__, PermissionError):
            return AgentConfig()
        raise


def service_sources(args: argparse.Namespace, datastore: OpenDatastore) -> ServiceSources:
    """Return what tells of Services: the cluster, or a file: that named, or the agent's."""
    if args.services_file and not Path(args.services_file).is_file():
        raise InvalidInput(f"there is no file {args.services_file}: name one with Services")
    services_file = args.services_file or _agents().services_file
    return opening.service_sources_of(datastore, services_file=services_file)


def _is_file(path: Path) -> bool:
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory: name the datastore's file in it")
    return path.exists()


async def _open_file(path: Path, is_read_only: bool) -> OpenDatastore:  # noqa: FBT001
    try:
        is_new = not _is_file(path) and not is_read_only
        datastore = await opening.open_datastore(str(path), is_read_only=is_read_only)
    except PermissionError as exc:
        raise DatastoreUnusable(f"only root may use the datastore {path}: use sudo") from exc
    except DatastoreUnusable as exc:
        if isinstance(exc.__cause__, OSError):
            raise DatastoreUnusable(_cannot_create(path, exc.__cause__)) from exc
        raise
    if is_new:  # perhaps the path was mistyped
        print_note(f"there was no datastore at {path}; a new one was made")
    return datastore


def _cannot_create(path: Path, exc: OSError) -> str:
    step = "use sudo" if isinstance(exc, PermissionError) else "name another by --datastore"
    return f"cannot create the datastore {path}: {reason_of(exc)}; {step}"
