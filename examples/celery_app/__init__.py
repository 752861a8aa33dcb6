"""An application of Celery's on shmq: its settings, its tasks, and a run of it that kills what it works with."""
