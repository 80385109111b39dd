"""Splitting without separating near duplicates: rows of one key stay together."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np

from lit_cls.data.splits import SPLIT_NAMES, Split, check_fractions, rows_by_label, split_sizes


def split_in_groups(
    labels: Sequence[str], keys: Sequence[str], fractions: tuple[float, float, float], seed: int, stratify: bool
) -> Split:
    """`split_by_fractions`, except that rows of one key (see `near_key`) stay together, whatever their labels.

    Sizes, and with `stratify` the mix of labels, are the same as nearly as the groups allow: groups of several rows
    are assigned first, the largest before the others, each to the split that it fills least; single rows fill up what
    is missing. The seed orders groups of one size, and the rows of each split.
    """
    check_fractions(fractions)
    rng = np.random.default_rng([seed, 2])
    kinds = labels if stratify else [""] * len(labels)
    sizes = {kind: split_sizes(len(rows), fractions) for kind, rows in rows_by_label(kinds).items()}
    of_key = list(rows_by_label(keys).values())
    groups = sorted((of_key[i] for i in rng.permutation(len(of_key))), key=len, reverse=True)
    partial = _PartialSplit(kinds, sizes)
    waiting = _place_one_of_each(partial, groups)
    for rows in waiting:
        if len(rows) > 1:
            partial.put(rows, partial.best_for(rows))
    alone = [rows[0] for rows in waiting if len(rows) == 1]
    for kind, places in sorted(rows_by_label([kinds[row] for row in alone]).items()):
        left = (alone[i] for i in places)
        for split, n in zip(partial.splits, partial.missing(kind, len(places)), strict=True):
            split.extend(islice(left, n))
    shuffled = ([split[i] for i in rng.permutation(len(split))] for split in partial.splits)
    return dict(zip(SPLIT_NAMES, shuffled, strict=True))


class _PartialSplit:
    """The three splits so far, and how many rows of each kind each of them should have."""

    def __init__(self, kinds: Sequence[str], sizes: dict[str, tuple[int, int, int]]) -> None:
        self.kinds, self.sizes = kinds, sizes
        self.splits: tuple[list[int], list[int], list[int]] = ([], [], [])
        self.held: list[Counter[str]] = [Counter(), Counter(), Counter()]

    def put(self, rows: list[int], split: int) -> None:
        self.splits[split].extend(rows)
        self.held[split].update(self.kinds[row] for row in rows)

    def best_for(self, rows: list[int]) -> int:
        """The split with the largest share of rows of these kinds still missing once these are in it."""
        counts = Counter(self.kinds[row] for row in rows)

        def room(split: int) -> float:
            held, sizes = self.held[split], self.sizes
            return sum(n * (1 - (held[kind] + n) / max(sizes[kind][split], 1)) for kind, n in counts.items())

        return max(range(3), key=room)

    def missing(self, kind: str, n: int) -> list[int]:
        """How many of n single rows go into each split."""
        wanted = np.array([max(0, self.sizes[kind][split] - self.held[split][kind]) for split in range(3)])
        if wanted.sum() > n:  # groups overfilled a split: the others share what is left
            exact = wanted * n / wanted.sum()
            wanted = np.floor(exact).astype(int)
            most = np.argsort(wanted - exact, kind="stable")[: n - int(wanted.sum())]
            wanted[most] += 1
        return [int(count) for count in wanted]


def _place_one_of_each(partial: _PartialSplit, groups: list[list[int]]) -> list[list[int]]:
    """Puts one group of each kind into each split if there are enough, train first; returns the other groups."""
    of_kind: dict[str, list[int]] = {}
    for i, rows in enumerate(groups):
        for kind in {partial.kinds[row] for row in rows}:
            of_kind.setdefault(kind, []).append(i)
    used: set[int] = set()
    for split in (0, 2, 1):
        for kind, candidates in sorted(of_kind.items(), key=lambda item: (len(item[1]), item[0])):
            # The smallest group disturbs the sizes least; those of one size are in the seed's order.
            free = next((i for i in reversed(candidates) if i not in used), None)
            if free is not None and not partial.held[split][kind]:
                used.add(free)
                partial.put(groups[free], split)
    return [rows for i, rows in enumerate(groups) if i not in used]
