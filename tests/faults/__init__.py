"""Breaks a running Pellucid on purpose, over a seeded schedule, and reconciles what is left: `make faults`."""
