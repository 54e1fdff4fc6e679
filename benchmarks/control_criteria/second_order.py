"""What second-order criteria have to beat: the data's targets in place of drawn ones, a curvature taken as diagonal."""

from torch import Tensor, nn

from prune_env.criteria import ScoringContext, register_criterion
from prune_env.criteria.curvature import channel_quadratics
from prune_env.criteria.fisher import diagonal_scores
from prune_env.criteria.lobs import at_once, by_channel
from prune_env.criteria.patch_covariance import patches, watch
from prune_env.walk import Scores


@register_criterion("empirical_fisher", needs="targets")
def empirical_fisher(context: ScoringContext) -> Scores:
    """`fisher` with the data's targets; all but zero where the network fits them (Kunstner et al., NeurIPS 2019)."""
    return diagonal_scores(context, context.mean_loss)


@register_criterion("lobs_diagonal", needs="images")
def lobs_diagonal(context: ScoringContext) -> Scores:
    """S_c = 1/2 sum_q H_qq w_cq^2: `lobs` with a diagonal H, which the paper's proof of the sum assumes."""
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, module: nn.Module, inputs: Tensor, _output: Tensor) -> None:
        found = patches(module, inputs)
        squares[name] = squares.get(name, 0) + found.double().square().sum((0, 3))
        counts[name] = counts.get(name, 0) + len(found) * found.shape[3]

    watch(context.folded, context.weights, context.batches(at_once(context)), see)
    return context.summed(
        {
            name: channel_quadratics(weight, by_channel(squares[name] / counts[name], weight))
            for name, weight in context.weights.items()
        }
    )
