"""`python -m gateway` is `flexway`."""

from gateway.cli import main

main()
