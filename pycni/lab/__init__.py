"""The lab: the exercise's cluster in network namespaces on one machine."""
