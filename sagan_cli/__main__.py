"""`python -m sagan_cli`, the form that torchrun needs."""

from sagan_cli.cli import main

if __name__ == "__main__":
    main()
