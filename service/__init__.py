"""Pellucid's own words and state: types, settings, ledger, queue. No DICOM, no tensors."""
