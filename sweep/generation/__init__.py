"""What `python -m sweep.generate` reads and writes: prompts, pictures with their provenance, DICOM."""
