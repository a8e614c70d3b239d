"""Every network: the subjects that are studied and the dictionaries that are trained."""
