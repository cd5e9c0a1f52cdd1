"""This room knows what can be bought: models, their limits and their dated prices."""
