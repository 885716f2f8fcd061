"""Rows of scores, and the files that hold them."""
