"""Pure decisions: what is wanted of a node, and which operations lead there."""
