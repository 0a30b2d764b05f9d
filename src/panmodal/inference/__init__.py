"""Inference beyond a single call: galleries of embedded pictures."""
