"""`python -m apr` is the `apr` command."""

from apr.cli.main import main

main()
