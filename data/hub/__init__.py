"""Runs and stores to and from the Hugging Face hub, or a folder that machines share."""
