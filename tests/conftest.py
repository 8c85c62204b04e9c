"""Settings that all tests share; no fixtures, so that a test shows what it stands on."""

import os

from hypothesis import HealthCheck, settings

# CI must answer the same for the same commit; `soak` is for a night's search for more.
settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=200,
    deadline=None,
    database=None,
    # A busy two-core machine is slow at making examples, and that is no test's fault.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "soak",
    parent=settings.get_profile("ci"),
    derandomize=False,
    max_examples=20_000,
    # What it took hours to find can be played again.
    print_blob=True,
)
settings.load_profile(os.environ.get("PYCNI_HYPOTHESIS", "ci"))
