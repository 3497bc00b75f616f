"""Measures a model package on labelled images."""
