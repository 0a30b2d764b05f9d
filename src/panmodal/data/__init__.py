"""Data: the one sample type, and what turns it into batches.

Everything that flows through the library is a conversation: a list of `Message`, each a role and
parts (text, pictures). The same form is read from JSONL, passed in Python and sent over HTTP.
"""
