"""``python -m kg``, and what ``strata`` calls: the command, imported only when it is to run.

multiprocessing imports the main module of its parent anew in each child; a query process
has no use for the command, and so does not get it.
"""

from __future__ import annotations


def main() -> None:
    """Run the command ``strata``."""
    from kg.cli import main as command

    command()


if __name__ == "__main__":
    main()
