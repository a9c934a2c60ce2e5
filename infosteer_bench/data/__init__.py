"""Training and test data: where files come from, how records become text, what a mix holds."""
