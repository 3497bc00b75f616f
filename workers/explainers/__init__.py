"""Explanation methods, each on its own, behind `workers.interfaces.Explainer`."""
