"""This file knows that `python -m droveway` is the command line."""

from droveway.cli.main import main

if __name__ == "__main__":
    main()
