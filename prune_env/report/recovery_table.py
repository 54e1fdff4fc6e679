"""The tables of searches after fine-tuning: one row for each network, and one for each search."""

from rich.box import SIMPLE
from rich.table import Table

from prune_env.runs.intervals import Interval
from prune_env.runs.recovery_comparison import DENSE, Difference, Recovered, RecoveryComparison


def render_recovery(comparison: RecoveryComparison) -> list[Table]:
    """The tables, qualities in per cent of the test set; the second one only for several seeds."""
    tables = [_networks(comparison)]
    if len(next(iter(comparison.by_search.values()))) > 1:
        tables.append(_searches(comparison))
    return tables


def _networks(comparison: RecoveryComparison) -> Table:
    epochs = f"{comparison.epochs} epoch{'s' if comparison.epochs > 1 else ''}"
    table = Table(
        box=SIMPLE,
        title=f"{comparison.model} after {epochs} of fine-tuning, on the test set in %",
        caption=f"Against {comparison.reference} of the same seed: difference with its 95 % interval over images, "
        "images that one network alone gets right, and McNemar's mid-p.",
        title_justify="left",
        caption_justify="left",
    )
    headings = ("seed", "search", "MACs", "params", "cut", "fine-tuned", f"against {comparison.reference}", "won", "p")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "search" else "right")
    seed = None
    for network in comparison.networks:
        if network.seed != seed:
            table.add_row(str(network.seed), "dense, as given", "100.0", "100.0", "", _percent(network.given))
            seed = network.seed
        table.add_row(*_row(comparison, network))
    return table


def _row(comparison: RecoveryComparison, network: Recovered) -> tuple[str, ...]:
    against, won, p = "", "", ""
    if network.search != comparison.reference:
        against, pairs = f"{100 * comparison.difference(network):+.2f}", comparison.pairs(network)
        if pairs is not None:
            low, high = pairs.interval
            against += f" ({100 * low:+.2f} to {100 * high:+.2f})"
            won, p = f"{pairs.won} : {pairs.lost}", f"{pairs.p_value:.3f}"
    trained_on = network.search == DENSE
    return (
        str(network.seed),
        "dense, trained on" if trained_on else network.search,
        _percent(network.macs, 1),
        _percent(network.params, 1),
        "" if trained_on else _percent(network.before),
        _percent(network.quality),
        against,
        won,
        p,
    )


def _searches(comparison: RecoveryComparison) -> Table:
    table = Table(
        box=SIMPLE,
        title="Mean over seeds",
        caption="95 % intervals over seeds: of the mean by bootstrap, of the differences by Student's t.",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("search", "fine-tuned", f"against {comparison.reference}", "seeds ahead"):
        table.add_column(heading, justify="left" if heading == "search" else "right")
    order = sorted(comparison.by_search.items(), key=lambda item: -sum(one.quality for one in item[1]))
    for name, networks in order:
        differences = [comparison.difference(one) for one in networks]
        row = [name, str(Interval.of([one.quality for one in networks]))]
        if name != comparison.reference:
            ahead = sum(difference > 0 for difference in differences)
            row += [_signed(Difference.of(differences)), f"{ahead} of {len(differences)}"]
        table.add_row(*row)
    return table


def _signed(difference: Difference) -> str:
    text = f"{100 * difference.mean:+.2f}"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f}"
