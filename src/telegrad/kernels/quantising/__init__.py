"""Entries to symbols and back."""
