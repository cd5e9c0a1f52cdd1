"""How vendors speak: pure functions between our nouns and their bytes."""
