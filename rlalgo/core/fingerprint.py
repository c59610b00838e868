"""The fingerprint of episodes: a run goes on with the very data that it began with, and a copy on disk is whole."""

import hashlib

import torch

from rlalgo.core.episodes import Episodes

_WHOLE = 2**27
"""Bytes of a column that are hashed in whole."""
_ROWS = 16
"""Rows of a larger one that are."""
_COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations", "starts", "has_final", "weights")


def fingerprint(episodes: Episodes) -> str:
    """32 hexadecimal digits that change with the numbers of steps and episodes and with what a column holds.

    The same whether observations are mapped or in memory, and in every version, since runs keep it. Of a column beyond
    128 MB only 16 rows at even distances count, its first and last among them, so that mapped ones need not be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in _COLUMNS:
        column = getattr(episodes, name)
        if column is None:
            continue
        digest.update(f"{name} {tuple(column.shape)} {column.dtype};".encode())
        if column.nbytes > _WHOLE:
            column = column[torch.arange(_ROWS) * (len(column) - 1) // (_ROWS - 1)]
        digest.update(column.cpu().contiguous().numpy())
    return digest.hexdigest()
