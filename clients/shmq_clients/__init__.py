"""The clients of shmq and its command line."""
