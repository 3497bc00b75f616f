"""Owen values: Shapley values that respect a tree of regions, refined where something happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.explainers.bounds import real, whole
from workers.explainers.perturbation import Clock, Sampling, explained_regions
from workers.explainers.pool import Pool
from workers.explainers.sampling import Estimate
from workers.explainers.superpixels import region_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from workers.explainers.sampling import Floats
    from workers.interfaces import Classifier, Explanation

    Shown = NDArray[np.bool_]
    Ask = Callable[[Shown], Floats]

TOGETHER = 4
"""Nodes that are split between two looks at which node matters most; fills a batch."""


class Owen:
    """Owen values over a tree of superpixels, from the whole image down to small regions.

    Sources: Owen 1977, "Values of games with a priori unions"; Winter 1989, doi:10.1007/BF01268132 (trees of any
    depth); Lundberg's partition explainer in the program `shap` (the order of splitting). Each node is split into its
    two parts before a background of its sisters shown or hidden; with more backgrounds than `backgrounds` a balanced
    draw of them is asked. The node that changes the logit most is split next; what is never split shares its value
    among its regions. The values always add up to the logit of the image less that of the hidden image.

    Args:
        regions: about how many superpixels, the finest that a value is given to.
        samples: at most so many forward passes.
        resolution: nodes that change the logit by less than this share of all values together stay whole.
        backgrounds: of one node; twice as many costs twice as much and halves the variance. A power of two.
        replacement: `dark`, `mean` or `blur`, what hides a region.
        seed: of the backgrounds.
    """

    name = "owen"
    title = "SHAP (Owen values)"

    def __init__(
        self,
        *,
        regions: int = 100,
        samples: int = 120,
        resolution: float = 0.02,
        backgrounds: int = 4,
        replacement: str = "dark",
        seed: int = 0,
    ) -> None:
        self._regions = whole("regions", regions, 2, 5000)
        self._backgrounds = whole("backgrounds", backgrounds, 2, 1024)
        if backgrounds & (backgrounds - 1):
            raise ValueError(f"backgrounds must be a power of two, not {backgrounds!r}")
        self._resolution = real("resolution", resolution, 0.0, 1.0)
        self._sampling = Sampling(samples=samples, stability=0.0, seed=seed, replacement=replacement)
        self.cost = samples

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; a region's value is its Owen value in logits, on the input's grid.

        Raises:
            UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
        """
        clock = Clock()
        pool = Pool(classifier, batch, self._regions, self._sampling.replacement, self._sampling.seed)
        game = Partition(
            lambda shown: pool.ask(shown)[:, list(labels)],
            pool.count,
            region_tree(batch, pool.regions),
            backgrounds=self._backgrounds,
            seed=self._sampling.seed,
        )
        game.refine(samples=self._sampling.samples, resolution=self._resolution)
        parameters = self._sampling.described() | {
            "resolution": f"{self._resolution:g}",
            "backgrounds": str(self._backgrounds),
            "parts": str(game.parts),
        }
        del parameters["stability"]
        return explained_regions(game.estimate(), labels, pool, game.asked, parameters=parameters, clock=clock)


@dataclass(kw_only=True)
class _Node:
    """A part of the image with its value, and the backgrounds it was asked before."""

    index: int
    depth: int
    backgrounds: Shown
    """(backgrounds, regions), without the node itself."""
    without: Floats
    """Logits of the backgrounds, (backgrounds, labels)."""
    within: Floats
    """Logits of the backgrounds with the node shown."""
    value: Floats
    """(labels,)."""
    variance: Floats
    """(labels,); of sampling backgrounds, 0 while all of them are asked."""

    @property
    def effect(self) -> float:
        """The most that showing the node changes any logit."""
        return float(np.abs(self.within - self.without).max())


class Partition:
    """A game over regions, split along a tree from the top.

    Args:
        ask: answers coalitions, bool (count, regions), with logits, (count, labels).
        count: how many regions.
        tree: the two parts of node `count + i` at index i.
        backgrounds: that are asked at most for one node.
        seed: of their draw.
    """

    def __init__(self, ask: Ask, count: int, tree: Sequence[tuple[int, int]], *, backgrounds: int, seed: int) -> None:
        self._ask, self._count, self._tree, self._most = ask, count, tree, backgrounds
        self._rng = np.random.default_rng(seed)
        self._members = [np.arange(count) == index for index in range(count)]
        for left, right in tree:
            self._members.append(self._members[left] | self._members[right])
        nothing = np.zeros((1, count), dtype=bool)
        without, within = ask(np.concatenate([nothing, ~nothing]))[:, None]
        self.asked = 2
        root = _Node(
            index=len(self._members) - 1,
            depth=0,
            backgrounds=nothing,
            without=without,
            within=within,
            value=(within - without)[0],
            variance=np.zeros(within.shape[1]),
        )
        self._frontier = [root]

    @property
    def parts(self) -> int:
        """How many parts have a value of their own."""
        return len(self._frontier)

    def refine(self, *, samples: int, resolution: float) -> None:
        """Split nodes, those with the greatest effect first, until samples run out or nothing matters any more."""
        while True:
            total = sum(float(np.abs(node.value).max()) for node in self._frontier)
            open_nodes = [n for n in self._frontier if n.index >= self._count and n.effect > resolution * total]
            open_nodes.sort(key=lambda node: (-node.effect, node.index))
            chosen: list[_Node] = []
            for node in open_nodes[:TOGETHER]:
                if self.asked + 2 * len(node.backgrounds) > samples:
                    break
                self.asked += 2 * len(node.backgrounds)
                chosen.append(node)
            if not chosen:
                return
            self._split(chosen)

    def estimate(self) -> Estimate:
        """Return the values of the regions; a part that was not split shares its value evenly."""
        labels = len(self._frontier[0].value)
        values, errors = np.zeros((self._count, labels)), np.zeros((self._count, labels))
        for node in self._frontier:
            members = self._members[node.index]
            values[members] = node.value / members.sum()
            errors[members] = np.sqrt(node.variance) / members.sum()
        return Estimate(values=values, errors=errors)

    def _split(self, nodes: Sequence[_Node]) -> None:
        questions = []
        for node in nodes:
            left, right = self._tree[node.index - self._count]
            questions += [node.backgrounds | self._members[left], node.backgrounds | self._members[right]]
        answers = np.split(self._ask(np.concatenate(questions)), np.cumsum([len(q) for q in questions])[:-1])
        for position, node in enumerate(nodes):
            self._frontier.remove(node)
            self._frontier += self._parts(node, questions[2 * position :][:2], answers[2 * position :][:2])

    def _parts(self, node: _Node, shown: Sequence[Shown], answers: Sequence[Floats]) -> list[_Node]:
        parts = []
        for own, other in ((0, 1), (1, 0)):
            # Before the sister is shown, and after.
            backgrounds = np.stack([node.backgrounds, shown[other]])
            without = np.stack([node.without, answers[other]])
            within = np.stack([answers[own], node.within])
            parts.append(self._part(node, own, backgrounds, without, within))
        # Fewer backgrounds are asked than the node's own value rests on; the sum is the node's all the same.
        gap = (node.value - parts[0].value - parts[1].value) / 2
        for part in parts:
            part.value = part.value + gap
        return parts

    def _part(self, node: _Node, side: int, backgrounds: Shown, without: Floats, within: Floats) -> _Node:
        """Return one half of a node; the arrays are (2, backgrounds, ...), sister hidden and shown."""
        change = (within - without).reshape(-1, within.shape[-1])
        asked, exist = len(change), 2 ** (node.depth + 1)
        variance = change.var(axis=0, ddof=1) / asked * (1.0 - asked / exist)
        kept = self._balanced(backgrounds.shape[1])
        return _Node(
            index=self._tree[node.index - self._count][side],
            depth=node.depth + 1,
            backgrounds=backgrounds[kept],
            without=without[kept],
            within=within[kept],
            value=change.mean(axis=0),
            variance=variance,
        )

    def _balanced(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Choose backgrounds: all, or half with the sister hidden and the other half with it shown."""
        if 2 * count <= self._most:
            return np.repeat([0, 1], count), np.tile(np.arange(count), 2)
        order = self._rng.permutation(count)
        return np.repeat([0, 1], [count // 2, count - count // 2]), order
