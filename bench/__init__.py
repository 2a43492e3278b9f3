"""What we claim, measured: ``python -m bench`` (or ``make bench``). Ratios within one run, so any machine will do."""
