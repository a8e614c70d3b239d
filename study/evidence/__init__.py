"""Evidence for missing curve detectors."""
