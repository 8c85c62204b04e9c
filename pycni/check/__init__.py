"""What a first day shows wrong with a machine or its network: `pycnictl check`."""
