"""What joins rooms."""

from ._compare import show_comparison
from ._demo import demo
from ._transfer import TransferMatrix, show_transfer, transfer_matrix

__all__ = ["TransferMatrix", "demo", "show_comparison", "show_transfer", "transfer_matrix"]
