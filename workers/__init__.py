"""Everything that speaks tensors: models, explainers and the Celery process. No network."""
