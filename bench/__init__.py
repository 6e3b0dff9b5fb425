"""Published figures come from here: `python -m bench`. Each module has `run(quick) -> rows`."""
