"""What joins rooms."""

from ._bench import bench_attacks
from ._bench_result import AttackBench, AttackResult, optimality, to_json
from ._bench_search import in_norm
from ._bench_show import bench_page, show_bench
from ._compare import Comparison, Entry, Row, compare
from ._compare_show import comparison_page, save_comparison, show_comparison
from ._demo import Demo, demo
from ._diversity import Diversity, diversity
from ._entries import CompareSetup, compare_setup
from ._game_day import GameDay, game_day
from ._transfer import TransferMatrix, transfer_matrix
from ._transfer_show import show_transfer, transfer_section
from ._unseen import Unseen, unseen_by

__all__ = [
    "AttackBench",
    "AttackResult",
    "CompareSetup",
    "Comparison",
    "Demo",
    "Diversity",
    "Entry",
    "GameDay",
    "Row",
    "TransferMatrix",
    "Unseen",
    "bench_attacks",
    "bench_page",
    "compare",
    "compare_setup",
    "comparison_page",
    "demo",
    "diversity",
    "game_day",
    "in_norm",
    "optimality",
    "save_comparison",
    "show_bench",
    "show_comparison",
    "show_transfer",
    "to_json",
    "transfer_matrix",
    "transfer_section",
    "unseen_by",
]
