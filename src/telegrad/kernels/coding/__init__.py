"""Symbols, integers and places into bytes and back, and numbers from and to listed places."""
