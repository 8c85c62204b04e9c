"""NAT and anti-spoofing: the pure renderer (`pycni.plan.nat`) and the table's shell."""

from pycni.kernel.nft import Nftables
from pycni.plan.nat import COUNTERS, NatInputs, render

__all__ = ["COUNTERS", "NatInputs", "Nftables", "render"]
