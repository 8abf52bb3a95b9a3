"""Loaders around any data, with provenance."""

from ._audio import load_audio
from ._columns import Columns
from ._dataset import Dataset, Provenance, from_arrays
from ._histograms import Histogram, Histograms, load_histograms
from ._images import load_images
from ._inputs import load_inputs
from ._load import load
from ._npz import load_npz, read_npz
from ._seen import Seen, see
from ._sklearn import load_sklearn
from ._table import load_csv, load_parquet, read_table
from ._tabular import columns_of, load_table, table_of
from ._torch import from_torch

__all__ = [
    "Columns",
    "Dataset",
    "Histogram",
    "Histograms",
    "Provenance",
    "Seen",
    "columns_of",
    "from_arrays",
    "from_torch",
    "load",
    "load_audio",
    "load_csv",
    "load_histograms",
    "load_images",
    "load_inputs",
    "load_npz",
    "load_parquet",
    "load_sklearn",
    "load_table",
    "read_npz",
    "read_table",
    "see",
    "table_of",
]
