"""What `smoke` believes of a run: that every method did its work and every task scores what it is given.

    probes = probe_tasks(plan.inputs.tasks, ...)      # scripted answers through the tasks' own filters
    checks = [*check_methods(plan, run_dir), *check_tasks(plan, run_dir, probes), check_board(plan, run_dir)]

A check holds for random weights as for trained ones: nothing is asked of a score, only of what made it.
"""

from infosteer_bench.smoke.board import check_board
from infosteer_bench.smoke.check import Check, Problems, check
from infosteer_bench.smoke.methods import check_methods
from infosteer_bench.smoke.probes import Probes, probe_tasks
from infosteer_bench.smoke.tasks import check_tasks

__all__ = ["Check", "Probes", "Problems", "check", "check_board", "check_methods", "check_tasks", "probe_tasks"]
