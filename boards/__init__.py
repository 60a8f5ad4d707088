"""Boards and parts as data, and the folding solver."""
