"""From a grid to records: inputs (looked up), plan (pure), worker (one piece of it), local (all of it)."""
