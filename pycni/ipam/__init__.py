"""Address management: one block's arithmetic, the order of blocks, and compare-and-swap around them."""
