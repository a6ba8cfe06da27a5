"""`python -m posezoo` is the `posezoo` command."""

from posezoo.cli import main

if __name__ == "__main__":
    main()
