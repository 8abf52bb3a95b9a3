"""What joins rooms."""

from ._bench import bench_attacks
from ._bench_result import AttackBench, AttackResult, optimality, to_json
from ._bench_search import in_norm
from ._bench_show import bench_page, show_bench
from ._compare import show_comparison
from ._demo import Demo, demo
from ._transfer import TransferMatrix, transfer_matrix
from ._transfer_show import show_transfer, transfer_section

__all__ = [
    "AttackBench",
    "AttackResult",
    "Demo",
    "TransferMatrix",
    "bench_attacks",
    "bench_page",
    "demo",
    "in_norm",
    "optimality",
    "show_bench",
    "show_comparison",
    "show_transfer",
    "to_json",
    "transfer_matrix",
    "transfer_section",
]
