"""Sound files in: which files there are, and what each sounds like to a model."""
