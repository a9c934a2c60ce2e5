"""From records to numbers: rows, intervals and verdicts, differences and ranks, costs, the mechanism."""
