"""What an operator's command ends with: its exit statuses, and which errors are wrong usage.

Scripts tell by these whether to correct their own words (2) or to look at the system (1).
"""

from pycni.errors import InvalidInput, PycniError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PROBLEMS = 3

EXIT_STATUS = f"""\
exit status: 0 done; {EXIT_FAILED} it failed, or there is no such object, file, datastore or agent;
{EXIT_USAGE} a mistake in the command line; {EXIT_PROBLEMS} (status, routes, bgp peers, check,
ipam check) something is wrong with the network, or (migrate) the plan can't be carried out yet.
"""


class WrongUsage(InvalidInput):
    """The words of the command line are wrong, whatever the system's state."""


def exit_status_of(exc: PycniError) -> int:
    """Return the exit status that tells a script of this error."""
    return EXIT_USAGE if isinstance(exc, WrongUsage) else EXIT_FAILED
