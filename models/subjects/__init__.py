"""The networks studied."""
