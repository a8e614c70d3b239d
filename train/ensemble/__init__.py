"""Several dictionaries that are one: bagging and boosting."""
