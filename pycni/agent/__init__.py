"""The per-node agent: reconciler, socket server, wiring."""
