"""Prompting: how a model is asked, beyond the question itself."""
