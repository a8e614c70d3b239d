"""The store: its format, writing, reading and verification. FORMAT.md describes the format."""
