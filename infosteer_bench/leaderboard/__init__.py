"""From records to boards: leaderboard.csv, leaderboard.md and provenance.json, rebuilt from records alone.

Nothing here imports torch; pyarrow is imported only where items are read or written.
"""

from infosteer_bench.leaderboard.publish import board_dirs, check, publish, publish_run, rebuild

__all__ = ["board_dirs", "check", "publish", "publish_run", "rebuild"]
