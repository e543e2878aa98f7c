"""What an installer does beside a device before it is driven: a safe test of what it does.

`plan.py` decides how small and which way; `trial.py` runs it against a bench
(`adapters/commissioning.py`) and always restores; `judging.py` says what the samples mean.
"""
