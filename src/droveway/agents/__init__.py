"""Agents: one of them, seventeen of them, or a file full of tasks."""
