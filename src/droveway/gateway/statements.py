"""This file knows the SQL of the mark by which processes tell each other of new settings."""

from typing import Final

GENERATION: Final = "SELECT number FROM mark WHERE name = 'settings'"
NEXT_GENERATION: Final = """
UPDATE mark SET number = number + 1 WHERE name = 'settings' RETURNING number
"""
