"""How to read each kind of explanation, and what it does not tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Legend:
    """Two sentences for somebody who looks at a map."""

    reading: str
    not_told: str


_ACTIVATION = Legend(
    reading="Coarse blobs: parts of the film whose features raised the probability.",
    not_told="It does not tell the border of a lesion; a blob is as coarse as the network's last grid.",
)
_RAISING = Legend(
    reading="Coarse blobs: parts of the film whose features raised the probability.",
    not_told="It does not tell what spoke against the finding, or the border of a lesion.",
)
_GRADIENT = Legend(
    reading="Fine dots: pixels where a small change of grey would change the probability.",
    not_told="It does not tell that these pixels caused the result; edges light up by themselves.",
)
_PRODUCT = Legend(
    reading="Fine dots: grey against mean grey, times what a small change of it would do.",
    not_told="It does not tell anything of what is mean grey; edges light up by themselves.",
)
_PATH = Legend(
    reading="Pixels by their share in the step from a darkened copy of this film to the film.",
    not_told="It does not tell of findings that are dark; another copy would give another map.",
)
_GUIDED = Legend(
    reading="Fine edges inside the coarse blob of Grad-CAM.",
    not_told="It does not tell what the network computes: the fine lines are partly the film's own edges.",
)
_RELEVANCE = Legend(
    reading="The result shared out backwards through the network, layer by layer, onto pixels.",
    not_told="It does not tell what would happen without a pixel; the shares depend on the chosen rule.",
)
_SURROGATE = Legend(
    reading="Patches of similar grey by their weight in a simple model fitted around this film.",
    not_told="It does not tell borders finer than a patch; films with patches blanked out look unnatural.",
)
_SHAPLEY = Legend(
    reading="Patches by their average contribution over many combinations of visible patches.",
    not_told="It does not tell borders finer than a patch; a share is no probability of disease there.",
)
_OCCLUSION = Legend(
    reading="Places where covering the film lowered the probability.",
    not_told="It does not tell of signs that lie in two places: covering one leaves the other.",
)
_MASKS = Legend(
    reading="Places that were visible in many random masks which kept the probability high.",
    not_told="It does not tell fine detail, and a part of it is noise of the sampling.",
)
_CONSENSUS = Legend(
    reading="Where the methods that passed their checks point together.",
    not_told="It does not tell that the model is right: methods can agree on a wrong reason.",
)
_OTHER = Legend(
    reading="Places that influenced the model by this method.",
    not_told="It does not tell where disease is, or how far it extends.",
)

_BY_METHOD = {
    "grad-cam": _ACTIVATION,
    "grad-cam-plus-plus": _RAISING,
    "hires-cam": _ACTIVATION,
    "layer-cam": _RAISING,
    "score-cam": _ACTIVATION,
    "cam": _ACTIVATION,
    "saliency": _GRADIENT,
    "smoothgrad": _GRADIENT,
    "input-x-gradient": _PRODUCT,
    "integrated-gradients": _PATH,
    "gradient-shap": _PATH,
    "deep-shap": _PATH,
    "guided-grad-cam": _GUIDED,
    "lrp": _RELEVANCE,
    "lime": _SURROGATE,
    "kernel-shap": _SHAPLEY,
    "partition-shap": _SHAPLEY,
    "shap": _SHAPLEY,
    "owen": _SHAPLEY,
    "occlusion": _OCCLUSION,
    "rise": _MASKS,
    "consensus": _CONSENSUS,
}


def legend(method: str) -> Legend:
    """Return the legend of a method by its registered name; variants (`lrp-gamma`) share their family's."""
    if method in _BY_METHOD:
        return _BY_METHOD[method]
    families = [name for name in _BY_METHOD if method.startswith(f"{name}-")]
    return _BY_METHOD[max(families, key=len)] if families else _OTHER
