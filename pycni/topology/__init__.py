"""Topologies: hosts, pools and pods of a cluster as a file, and what its nodes will route."""
