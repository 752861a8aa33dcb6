"""The daemon of shmq: master, broker, supervisor."""
