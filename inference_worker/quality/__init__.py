"""Checks of what the model said, and what to try where one fails. Pure functions over text."""
