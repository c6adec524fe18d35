"""Background jobs: requests are run, recorded, followed, cancelled and, after a crash, recovered."""
