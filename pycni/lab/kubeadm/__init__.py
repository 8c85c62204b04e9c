"""A real Kubernetes cluster on one machine: `bin/lab --kubernetes`."""
