"""The computations of dictionaries: reference implementations and faster equivalents."""
