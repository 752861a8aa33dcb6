"""The same work through shmq and through its peers, in turn, in one run: `python -m benchmarks.side_by_side --help`."""
