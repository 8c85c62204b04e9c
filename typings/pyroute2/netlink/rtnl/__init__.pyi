# pyroute2 carries no useful types. Its values stop in pycni.kernel's adapters and in the tests.
from typing import Any

def __getattr__(name: str) -> Any: ...
