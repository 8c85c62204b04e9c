"""The kernel's side: hand-packed rtnetlink, events, pods' veth pairs, nftables, and a fake."""
