"""`python -m service` is `image-export`."""

from service.cli import main

if __name__ == "__main__":
    main(prog_name="python -m service")
