"""What users run: register, apply, evaluate, convert; paths in, files out."""
