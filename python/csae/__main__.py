"""`python -m csae` runs the program."""

from ._program import main

main()
