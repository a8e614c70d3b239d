"""Training of small classifiers, plain and adversarial: images -> a network (a run)."""
