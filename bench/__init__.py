"""Benchmarks: each compares pycni with a reference in one run."""
