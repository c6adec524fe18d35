"""The functions that run in a worker process; they import Pillow only when called, so the parent starts without it."""

from service.imaging.plan import Job, Outcome, WorkerLimits


def start(limits: WorkerLimits) -> None:
    """Prepare a worker process for jobs."""
    from service.workers import worker

    worker.start(limits)


def run(job: Job) -> Outcome:
    """Do one job in a worker process."""
    from service.workers import worker

    return worker.run(job)
