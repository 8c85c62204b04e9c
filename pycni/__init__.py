"""A Calico-style pod network for Kubernetes nodes: BGP routes, IP-in-IP tunnels, CNI.

This module must import nothing: the CNI engine pays for every import on each request.
"""

__version__ = "0.1.0"
