"""DICOM objects, read and written: Part 10 to `Image`, `Result` to Secondary Capture and SR."""
