"""Trains a model package from films on disk: reproducible, resumable, chosen on validation alone."""
