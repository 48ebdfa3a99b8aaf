"""Which questions a participant gets, in which order, and what is on which side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

Pair = tuple[str, str]


def draw(
    pairs: Sequence[Pair],
    answered: Mapping[Pair, int],
    asked: Mapping[Pair, int],
    participant: str,
    count: int = 20,
    seed: int = 0,
) -> list[Pair]:
    """`count` different pairs (prompt, baseline) for a participant, all of them where there are fewer.

    The least answered come first, then the least asked; among equals those whose prompt and baseline this
    participant has least of, then those whose baseline was asked least. A hash of seed, participant and pair
    breaks what ties are left and gives the order, so the same counts give the same questions.

    answered: votes per pair; asked: participants per pair that it was given to, answered or not.
    """
    totals: Counter[str] = Counter()
    for (_, baseline), number in asked.items():
        totals[baseline] += number
    prompts, baselines = Counter(), Counter()
    left = {pair: _number(seed, participant, *pair) for pair in pairs}
    chosen: list[Pair] = []

    def rank(pair: Pair) -> tuple[int, ...]:
        prompt, baseline = pair
        counts = answered.get(pair, 0), asked.get(pair, 0)
        return *counts, prompts[prompt], baselines[baseline], totals[baseline], left[pair]

    while left and len(chosen) < count:
        pair = min(left, key=rank)
        del left[pair]
        prompts[pair[0]] += 1
        baselines[pair[1]] += 1
        chosen.append(pair)
    return sorted(chosen, key=lambda pair: _number(seed, participant, "order", *pair))


def ours_is_left(participant: str, pair: Pair, seed: int = 0) -> bool:
    """A fair coin that falls the same way each time for the same participant and pair."""
    return bool(_number(seed, participant, "side", *pair) & 1)


def _number(*parts: object) -> int:
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
