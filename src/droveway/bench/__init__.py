"""This room knows how an OpenAI-compatible server is measured, our own gateway or any other.

Read `load.py` first: it decides when each request goes. `measure.py` reads one answer, `tally.py`
keeps what all of them told, `report.py` makes figures of it. It does not use the engine, which
would ask again where a measurement wants to know what failed.
"""
