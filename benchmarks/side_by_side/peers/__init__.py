"""One module for each kind of peer. What a peer is: `benchmarks.side_by_side.peer`."""
