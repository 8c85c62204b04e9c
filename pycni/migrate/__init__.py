"""Taking over a node from Calico, in place, and giving it back: look, plan, do."""
