"""index.html of a board: one file that opens from disk, and the flipped items beside it where they are many."""

from infosteer_bench.leaderboard.views.page.build import INDEX_FILE, ITEMS_FOLDER, build_page

__all__ = ["INDEX_FILE", "ITEMS_FOLDER", "build_page"]
