"""How far an explanation may be trusted on one image: measures, thresholds, verdicts."""
