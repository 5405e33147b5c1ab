"""`python -m simexm.cli`."""

from simexm.cli import main

if __name__ == "__main__":
    main()
