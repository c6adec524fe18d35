"""What the parent names for a worker to call: the imports inside keep Pillow out of the parent, which starts faster."""

from service.imaging.plan import Job, Outcome, WorkerLimits


def start(limits: WorkerLimits) -> None:
    """Prepare a worker process for jobs."""
    from service.workers import worker

    worker.start(limits)


def run(job: Job) -> Outcome:
    """Do one job in a worker process."""
    from service.workers import worker

    return worker.run(job)
