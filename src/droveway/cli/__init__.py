"""This room knows the command line: one small file for each noun, and the door in `main.py`."""
