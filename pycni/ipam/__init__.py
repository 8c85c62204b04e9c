"""Address management: a block's arithmetic, the order of blocks, and the writes around them."""
