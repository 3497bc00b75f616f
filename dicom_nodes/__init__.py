"""Everything that speaks DICOM: listener, sender and the objects. No tensors."""
