"""Waveforms: in an .npz file, or .wav files in one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._dataset import Dataset
from ._folder import class_files
from ._npz import read_npz
from ._prepare import check_options, prepare

Array = NDArray[Any]


def load_audio(
    path: str | Path,
    x: str = "x",
    y: str = "y",
    *,
    length: int | None = None,
    scale: float = 1.0,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Dataset:
    """Waveforms (N, samples) in [-1, 1] of an .npz (keys x, y) or a folder of .wav files.

    PCM integers (uint8, int16, int32) become floats, several channels their mean; length: samples
    that each waveform is cut or zero-padded to, needed where they differ.
    """
    check_options(scale=scale, limit=limit)
    if length is not None and length < 1:
        raise DataError(f"length is {length}; give at least 1 sample")
    path = Path(path)
    if path.suffix.lower() == ".npz":
        waves, labels = read_npz(path, [x, y])
        if waves.ndim < 2:
            raise DataError(f"key {x!r} has shape {waves.shape}; give waveforms (N, samples)")
        raw, names = fitted(pcm(waves), length or waves.shape[-1]), None
    else:
        files, texts, names = class_files(path, (".wav",), limit)
        raw, labels = _stacked(files, length), np.array(texts)
    return prepare(
        raw,
        labels,
        name=path.stem,
        source=source or str(path),
        licence=licence or "unknown",
        scale=scale,
        limit=limit,
        classes=classes or names,
    )


def pcm(wave: Array) -> Array:
    """PCM integers as float32 in [-1, 1]; anything else as it is."""
    if wave.dtype == np.uint8:  # 8-bit wav files are unsigned, silence is 128
        return (wave.astype(np.float32) - 128) / np.float32(128)
    if wave.dtype in (np.int16, np.int32):
        return np.asarray(np.divide(wave, -float(np.iinfo(wave.dtype).min), dtype=np.float32))
    return wave


def fitted(wave: Array, length: int) -> Array:
    """A waveform (..., samples) cut or zero-padded at its end."""
    wave = wave[..., :length]
    missing = length - wave.shape[-1]
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, missing)]) if missing else wave


def _stacked(files: list[Path], length: int | None) -> Array:
    waves: list[Array] = []
    rates: list[int] = []
    for file in files:
        rate, wave = _read(file)
        rates.append(rate)
        waves.append(wave)
        if rate != rates[0]:
            raise DataError(
                f"{file} has {rate} samples per second but {files[0].name} has {rates[0]}; "
                "resample them to one rate"
            )
        if length is None and len(wave) != len(waves[0]):
            raise DataError(
                f"{file} has {len(wave)} samples but {files[0].name} has {len(waves[0])}; "
                f"give one length for all, e.g. length: {max(map(len, waves))}"
            )
    return np.stack([fitted(wave, length or len(wave)) for wave in waves])


def _read(file: Path) -> tuple[int, Array]:
    """Samples per second and the mono waveform (samples,) of a .wav file."""
    import struct
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            # Chunks that hold no sound (titles, cue points) are of no interest.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, wave = wavfile.read(file)
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise DataError(
            f"{file} cannot be read as a wav file ({one_line(error, 80)}); write it again as PCM"
        ) from None
    wave = pcm(np.asarray(wave))
    return int(rate), wave.mean(1) if wave.ndim == 2 else wave
