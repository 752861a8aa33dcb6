"""shmq-perf: load of a chosen shape on a queue, and what became of it: rates, and latencies from the time a message was
due.
"""
