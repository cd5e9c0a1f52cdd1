"""When to try again and when to wait: decisions only, on numbers handed in."""
