"""Measures of predictions against annotations."""
