"""`pycnictl ipam check`: compare what address management has written with itself and with pods."""

import argparse
from collections.abc import Sequence

from pycni.ctl.ipam_reading import Reading, add_run_dir_argument, read_findings
from pycni.ctl.ipam_report import counts_of, report_document
from pycni.ctl.output import add_output_argument, command, print_documents, print_table
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import EXIT_PROBLEMS
from pycni.ipam.findings import Finding
from pycni.ipam.mending import Mending


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam check` to a command line."""
    check = verbs.add_parser(
        "check",
        help="find leaked addresses, wrong counts and claims, and how to repair them",
        description="Compares pools, blocks, handles and affinities with each other and, where an"
        f" agent runs here, with this node's pods. Exits with {EXIT_PROBLEMS} when something is"
        " wrong; what heals by itself is told, and is nothing wrong.",
        epilog="example: pycnictl ipam check -o json > report.json",
    )
    check.add_argument(
        "--repair",
        action="store_true",
        help="mend what needs no judgement (counts of handles, affinities without a block, empty"
        " blocks in no pool), say what was done, and check again",
    )
    add_run_dir_argument(check)
    add_output_argument(check)
    check.set_defaults(func=command(_check))


async def _check(args: argparse.Namespace) -> int:
    datastore = await open_datastore(args, is_read_only=not args.repair)
    try:
        reading, findings = await read_findings(datastore, args.run_dir)
        repaired: list[str] = []
        if args.repair and findings:
            repaired = await Mending(datastore).mend(findings)
            reading, findings = await read_findings(datastore, args.run_dir)
    finally:
        await datastore.close()
    if args.output == "table":
        _print(reading, findings, repaired=repaired)
    else:
        document = report_document(reading, findings, repaired=repaired)
        print_documents([document], form=args.output)
    return EXIT_PROBLEMS if any(not one.is_information for one in findings) else 0


def _print(reading: Reading, findings: Sequence[Finding], *, repaired: Sequence[str]) -> None:
    for line in repaired:
        print(f"repaired: {line}")
    if repaired:
        print()
    if findings:
        print_table(
            ("FINDING", "WHAT", "REPAIR"),
            [(one.kind.value, one.sentence, one.repair or _no_repair(one)) for one in findings],
        )
        print()
    counts = ", ".join(f"{what} {count}" for what, count in counts_of(reading).items())
    print(f"findings: {len(findings)} (read: {counts})")
    if reading.note:
        print(f"note: {reading.note}")


def _no_repair(finding: Finding) -> str:
    return "(heals by itself)" if finding.is_information else "(needs judgement)"
