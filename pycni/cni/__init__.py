"""The CNI plugin: protocol, the steps of each verb, and the in-process engine."""
