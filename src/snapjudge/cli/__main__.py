"""`python -m snapjudge.cli` is the snapjudge command."""

from snapjudge.cli.main import main

if __name__ == "__main__":
    main()
