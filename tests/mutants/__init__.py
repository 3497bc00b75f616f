"""Structure-aware mutants of DICOM files, and what the service makes of each."""
