"""The rules of control: choose, check, move on, verify, restore. Pure functions that also return their reasons.

No clock, no database, no device: whatever a rule needs to know is an argument, and what is not known is None.
"""
