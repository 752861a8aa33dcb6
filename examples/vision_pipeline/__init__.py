"""Photographs through a pipeline of worker processes over shmq. Run it: `python -m examples.vision_pipeline`."""
