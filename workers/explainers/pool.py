"""Coalitions of an image's superpixels and the network's answers to them, shared by the methods that ask.

LIME and KernelSHAP differ in what they make of the answers more than in what they ask. Each method asks in the same
order whoever asked before, so what it finds never depends on that; only its time does.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from workers.explainers.copies import weights_state
from workers.explainers.hiding import HiddenImage
from workers.explainers.sampling import balanced_halves, leveraged, take
from workers.explainers.superpixels import superpixels

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import torch
    from numpy.typing import NDArray

    from workers.explainers.sampling import Floats, Shown
    from workers.interfaces import Classifier

KEPT = 6
"""Pools: that of the image, and those of its changed copies by which stability is measured."""


class Pool:
    """One hidden image, cut into superpixels.

    Args:
        classifier: is asked.
        batch: one input, float32 (1, channels, rows, columns).
        regions: about how many superpixels.
        replacement: what hides a region, see `workers.explainers.hiding.replacement`.
        seed: of the coalitions.

    Raises:
        UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
    """

    def __init__(self, classifier: Classifier, batch: torch.Tensor, regions: int, replacement: str, seed: int) -> None:
        self.regions = superpixels(batch, regions)
        self.count = int(self.regions.max()) + 1
        self.hidden = HiddenImage(classifier, batch, replacement)
        self._ends: Floats | None = None
        self._halves = _Pairs(self, balanced_halves(self.count, np.random.default_rng(seed)))
        self._leveraged = _Pairs(self, leveraged(self.count, np.random.default_rng(seed)))

    def ask(self, shown: Shown) -> Floats:
        """Return logits, float64 (count, labels), of coalitions, bool (count, regions)."""
        return self.hidden.by_regions(shown, self.regions)

    def ends(self) -> Floats:
        """Return the logits of the hidden image and of the whole one, (2, labels)."""
        if self._ends is None:
            self._ends = self.ask(np.stack([np.zeros(self.count, dtype=bool), np.ones(self.count, dtype=bool)]))
        return self._ends

    def halves(self, pairs: int) -> tuple[Shown, Floats]:
        """Return coalitions of about half the regions, (pairs, regions), and the logits of each and its complement.

        The logits have the shape (pairs, 2, labels); see `workers.explainers.sampling.balanced_halves`.
        """
        return self._halves.first(pairs)

    def leveraged(self, pairs: int) -> tuple[Shown, Floats]:
        """Return coalitions of all sizes likewise; see `workers.explainers.sampling.leveraged`."""
        return self._leveraged.first(pairs)


class _Pairs:
    """Coalitions in the order in which they are drawn, with their complements."""

    def __init__(self, pool: Pool, coalitions: Iterator[NDArray[np.bool_]]) -> None:
        self._pool, self._coalitions = pool, coalitions
        self._shown: list[Shown] = []
        self._answers: list[Floats] = []

    def first(self, pairs: int) -> tuple[Shown, Floats]:
        missing = pairs - sum(map(len, self._shown))
        if missing > 0:
            drawn = take(self._coalitions, missing)
            both = np.stack([drawn, ~drawn], axis=1)
            answers = self._pool.ask(both.reshape(2 * missing, -1))
            self._shown.append(drawn)
            self._answers.append(answers.reshape(missing, 2, -1))
        return np.concatenate(self._shown)[:pairs], np.concatenate(self._answers)[:pairs]


_POOLS: OrderedDict[Hashable, Pool] = OrderedDict()


def pool_of(classifier: Classifier, batch: torch.Tensor, regions: int, replacement: str, seed: int) -> Pool:
    """Return the pool of an image, the one from before where nothing has changed since.

    Raises:
        UnsupportedMethodError: as for `Pool`.
    """
    image = hashlib.sha256(batch.detach().cpu().contiguous().numpy().tobytes()).digest()
    state = weights_state(classifier.network) if classifier.network is not None else ()
    # A pool keeps its classifier alive, so no other one can have its id meanwhile.
    key = (id(classifier), image, tuple(batch.shape), state, regions, replacement, seed)
    if key not in _POOLS:
        _POOLS[key] = Pool(classifier, batch, regions, replacement, seed)
    _POOLS.move_to_end(key)
    while len(_POOLS) > KEPT:
        _POOLS.popitem(last=False)
    return _POOLS[key]


def forget_pools() -> None:
    """Drop what was asked: for timing a method as if it were alone."""
    _POOLS.clear()
