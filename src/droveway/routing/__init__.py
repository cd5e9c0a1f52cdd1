"""Who may answer: names, tiers and plans; decisions only."""
