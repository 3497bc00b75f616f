"""How layer-wise relevance propagation hands a neuron's relevance to the neurons below it.

Every rule shares out relevance R of an output among what made it: positive contributions z+ (sum P), negative
contributions z- (sum N) and the bias. A rule is two factors per output, u for its positive and v for its negative
contributions, so that input i gets u z+ + v z-. What a rule leaves over, the bias's share above all, goes to the same
contributions by their size, and where there are none, evenly: so nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = 1e-12
"""Share of a layer's largest sum below which a sum counts as nothing: dividing by it would overflow."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What came together in each output of a layer; all of the output's shape."""

    positive: torch.Tensor
    negative: torch.Tensor
    """All 0 where the rule asked for none."""
    bias: torch.Tensor
    """Broadcasts to the output."""


class Rule(Protocol):
    """Shares out relevance."""

    @property
    def needs_negative(self) -> bool:
        """Whether negative contributions are computed for it at all."""

    def factors(self, sums: Sums, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return u and v, of the output's shape."""


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """In proportion to contributions, sign and all; what nearly cancels out is damped.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 58.
    """

    epsilon: float
    """Added to sums, as a share of their root mean square in the layer."""
    needs_negative = True

    def factors(self, sums: Sums, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return R / (z + epsilon sign z) twice."""
        total = sums.positive + sums.negative + sums.bias
        damping = self.epsilon * total.square().mean().sqrt()
        both = divide(relevance, total + torch.where(total >= 0, damping, -damping))
        return both, both


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """In proportion to contributions, those of the sum's own sign favoured.

    Source: Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview", doi:10.1007/978-3-030-28954-6_10;
    for negative sums its mirror image, so that signed inputs are treated alike.
    """

    gamma: float
    needs_negative = True

    def factors(self, sums: Sums, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return R / (z + gamma P), the favoured one times 1 + gamma."""
        total = sums.positive + sums.negative + sums.bias
        up = total >= 0
        favoured = torch.where(up, sums.positive + sums.bias.clamp_min(0.0), sums.negative + sums.bias.clamp_max(0.0))
        plain = divide(relevance, total + self.gamma * favoured)
        more = plain * (1.0 + self.gamma)
        return torch.where(up, more, plain), torch.where(up, plain, more)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta:
    """Positive and negative contributions apart, alpha of the former less beta = alpha - 1 of the latter.

    Source: Bach et al. 2015, equation 60, without bias. Alpha 1 is also known as z+.
    """

    alpha: float

    @property
    def needs_negative(self) -> bool:
        """Alpha 1 looks at nothing negative, which saves half of the work."""
        return self.alpha != 1.0

    def factors(self, sums: Sums, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha R / P and -beta R / N."""
        up = self.alpha * divide(relevance, sums.positive)
        if not self.needs_negative:
            return up, torch.zeros_like(up)
        return up, (1.0 - self.alpha) * divide(relevance, sums.negative)


@dataclass(frozen=True, kw_only=True)
class Flat:
    """Evenly to all inputs, whatever they are: for the first layer, whose detail is noise.

    Source: Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4.
    """

    needs_negative = False

    def factors(self, sums: Sums, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return nothing, so that all is left over."""
        nothing = torch.zeros_like(relevance + sums.bias)
        return nothing, nothing


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A linear operation without its bias."""

    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Of an input and a weight."""
    weight: torch.Tensor
    bias: torch.Tensor
    """Broadcasts to the output."""


def redistribute(rule: Rule, operation: Operation, inputs: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Return the relevance of an operation's inputs, of their shape; it sums to that of the outputs."""
    if isinstance(rule, Flat):
        return _evenly(operation, inputs, relevance)
    parts = [inputs.clamp_min(0.0)]
    if bool((inputs < 0).any()):
        parts.append(inputs.clamp_max(0.0))
    with torch.enable_grad():
        leaves = [part.requires_grad_() for part in parts]
        positive, negative = _contributions(operation, leaves, needs_negative=rule.needs_negative)
    sums = Sums(
        positive=positive.detach(),
        negative=torch.zeros_like(positive) if negative is None else negative.detach(),
        bias=operation.bias,
    )
    up, down, left = _complete(*rule.factors(sums, relevance), sums, relevance)
    outputs, factors = ([positive], [up]) if negative is None else ([positive, negative], [up, down])
    pulled = torch.autograd.grad(outputs, leaves, factors, allow_unused=True)
    shares = [leaf.detach() * pull for leaf, pull in zip(leaves, pulled, strict=True) if pull is not None]
    result = torch.stack(shares).sum(dim=0) if shares else torch.zeros_like(inputs)
    return result + _evenly(operation, inputs, left) if bool(left.any()) else result


def divide(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Return above / below, 0 where below is nothing."""
    least = LEAST * below.abs().amax().clamp_min(torch.finfo(below.dtype).tiny / LEAST)
    enough = below.abs() > least
    return torch.where(enough, above / torch.where(enough, below, torch.ones_like(below)), torch.zeros_like(above))


def _contributions(
    operation: Operation, leaves: list[torch.Tensor], *, needs_negative: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return P and N: positive inputs meet positive weights, negative ones negative weights; and the other way."""
    raising, lowering = operation.weight.clamp_min(0.0), operation.weight.clamp_max(0.0)
    positive = operation.apply(leaves[0], raising)
    if len(leaves) > 1:
        positive = positive + operation.apply(leaves[1], lowering)
    if not needs_negative:
        return positive, None
    negative = operation.apply(leaves[0], lowering)
    if len(leaves) > 1:
        negative = negative + operation.apply(leaves[1], raising)
    return positive, negative


def _complete(
    up: torch.Tensor, down: torch.Tensor, sums: Sums, relevance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add what a rule leaves over to its factors; return them, and what no contribution can take."""
    rest = relevance - up * sums.positive - down * sums.negative
    size = sums.positive - sums.negative
    more = divide(rest, size)
    left = torch.where(more == 0, rest, torch.zeros_like(rest))
    return up + more, down - more, left


def _evenly(operation: Operation, inputs: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Share out evenly among the inputs that an output sees; padding sees nothing."""
    weight = torch.ones_like(operation.weight)
    with torch.enable_grad():
        leaf = torch.ones_like(inputs).requires_grad_()
        seen = operation.apply(leaf, weight)
    (shares,) = torch.autograd.grad(seen, leaf, divide(relevance, seen.detach()))
    return shares
