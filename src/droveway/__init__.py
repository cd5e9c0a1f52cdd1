"""Droveway: one engine for fleets of agents."""

__version__ = "0.1.0"
