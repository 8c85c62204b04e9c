"""What a person finds at hand in a node's shell, with its variables set.

pycnictl, cnitool where there is one, and `lab-runtime`, which takes cnitool's words.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from pycni.lab import commands
from pycni.lab.layout import Layout, Plan

PYCNICTL = """\
#!/bin/sh
# pycnictl of this node: its agent's socket, the lab's datastore.
case ${{1:-}} in
    status | routes | node) set -- "$@" --run-dir {run_dir} ;;
    -* | predict | '') ;;
    check)
        shift
        set -- --datastore {datastore} check --node {node} --net-dir {net_dir} "$@"
        ;;
    ipam)
        case ${{2:-}} in
            check | explain | release) set -- "$@" --run-dir {run_dir} ;;
        esac
        set -- --datastore {datastore} "$@"
        ;;
    bgp)
        case ${{2:-}} in
            explain) set -- "$@" --services-file {services} --run-dir {run_dir} ;;
            [a-z]*) set -- "$@" --run-dir {run_dir} ;;
        esac
        set -- --datastore {datastore} "$@"
        ;;
    *) set -- --datastore {datastore} "$@" ;;
esac
exec {python} -I -m pycni.ctl "$@"
"""

RUNTIME = """\
#!/bin/sh
exec {python} -I -m pycni.lab.runtime "$@"
"""


def write_tools(node: str, *, plan: Plan, layout: Layout) -> None:
    """Fill a node's own bin directory."""
    directory = layout.node(node) / "bin"
    directory.mkdir()
    words = {
        "run_dir": shlex.quote(str(layout.run_dir(node))),
        "datastore": shlex.quote(str(layout.datastore)),
        "services": shlex.quote(str(layout.services)),
        "node": shlex.quote(node),
        "net_dir": shlex.quote(str(layout.net_dir(node))),
        "python": shlex.quote(sys.executable),
    }
    for name, text in (("pycnictl", PYCNICTL), ("lab-runtime", RUNTIME)):
        (directory / name).write_text(text.format(**words), encoding="utf-8")
        (directory / name).chmod(0o755)
    if Path(plan.cnitool).is_file():
        (directory / "cnitool").symlink_to(plan.cnitool)


def environment(node: str, *, layout: Layout) -> Mapping[str, str]:
    """Return the variables that make these commands this node's."""
    return {
        "PATH": f"{layout.node(node) / 'bin'}:{commands.PATH}",
        "CNI_PATH": str(layout.plugins),
        "NETCONFPATH": str(layout.net_dir(node)),
    }
