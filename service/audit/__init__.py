"""The audit trail: DICOM audit messages in an append-only, hash-chained log, and by syslog over TLS.

`message` writes what PS3.15 section A.5 asks for, `chain` keeps it, `trail` says when, `syslog` forwards it.
"""
