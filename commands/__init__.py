"""The verbs of the `fuhe` command, one module a subject. cli.py gathers them."""
