"""Joint tuning."""
