"""Dictionary (+ subject, inputs) -> findings and a page to look at."""
