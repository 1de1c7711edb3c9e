"""Beam search over all groups at once, by the rules of transformers 5.23.

The rules, per group of K beams: of the 2K best continuations the K best that do not end go on; an
end counts only among the K best, with score Σ log p ÷ length^penalty; the K best finished ones are
kept. At its length limit a group ends with whatever ranks best. A group is done when early
stopping is satisfied or when its best beam can no longer beat its worst finished one. Greedy search
is the same with K = 1, where the first end is the result.

Nothing here reads a tensor back to the host except the answer "which groups are done". Sequences
are never copied about: a history of (parent, token) per step is walked back when a group retires.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from inference_worker.engine.continuous.architecture import Architecture
from inference_worker.engine.continuous.caches import Slots
from inference_worker.engine.continuous.hypotheses import walk_back
from inference_worker.engine.continuous.ngrams import RepeatGuard
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.slots import Slot
from inference_worker.engine.protocol import Hypothesis

NEVER = float("-inf")


class Beams:
    """What the search knows about each slot: [slots, beams] tensors unless noted."""

    def __init__(
        self, architecture: Architecture, rules: Rules, width: int, device: torch.device
    ) -> None:
        self._rules, self._start, self._end = rules, architecture.start, architecture.end
        self._vocabulary = architecture.vocabulary
        beams = rules.beams
        shape = (width, beams)

        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.tokens, self.positions = whole(*shape), whole(*shape)  # what the next step runs on
        self._scores = torch.full(shape, NEVER, device=device)
        self._lengths, self._limits, self._languages = whole(width), whole(width), whole(width)
        # Whether somebody is in a slot and not done: a group that is done stays as it is, since the
        # host may come to read it some steps later.
        self._alive = torch.zeros(width, dtype=torch.bool, device=device)
        self._numbers = torch.arange(width, device=device)
        self._history = whole(width, rules.max_length, beams)  # per step: parent and token, packed
        self._best_scores = torch.full(shape, NEVER, device=device)  # finished hypotheses
        self._best = whole(*shape)  # their step, parent and token, packed
        penalties = [
            max(1, length) ** rules.length_penalty for length in range(rules.max_length + 1)
        ]
        self._penalties = torch.tensor(penalties, dtype=torch.float32, device=device)
        self._early = rules.early_stopping is True or beams == 1
        self._never = rules.early_stopping == "never" and rules.length_penalty > 0
        self._guard = RepeatGuard(rules, width, device)

    def place(self, slots: Sequence[Slot]) -> None:
        """Starts groups. With beams, beam 0 holds the start token and beam 1 the forced language
        token, whose log-probability is 0 by definition: the search begins from beam 1. A greedy
        group has one row; its first step is spent on the start token."""
        index, languages, lengths, limits, ngrams = self.tokens.new_tensor(
            [
                (
                    slot.index,
                    slot.sentence.target_language,
                    slot.length,
                    slot.limit,
                    self._rules.ngram(slot.sentence),
                )
                for slot in slots
            ]
        ).unbind(1)
        leader = 0 if self._rules.beams == 1 else 1
        self.tokens[index], self.positions[index] = self._start, 0
        if leader:
            self.tokens[index, leader], self.positions[index, leader] = languages, 1
        self._scores[index], self._best_scores[index] = NEVER, NEVER
        self._scores[index, leader] = 0
        self._lengths[index], self._limits[index] = lengths, limits
        self._languages[index] = languages
        self._alive[index] = True
        self._guard.place(index, self._start, languages, ngrams)

    def banned(self, slots: Slots, ngram: int, width: int) -> Tensor | None:
        """Tokens that must not come next, bool [groups × beams, ``width``]; None if all may.
        ``ngram`` is the longest n-gram that may not come twice in any of the groups, 0 for none."""
        if not ngram:
            return None
        return self._guard.banned(slots, self._lengths[slots], ngram, width)

    def select(
        self, slots: Slots, ngram: int, values: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advances the groups in ``slots`` by one token.

        Takes each beam's 2K most probable next tokens and their log-probabilities, both
        [groups × beams, 2K], which may be overwritten. Returns the parents of the beams that go on
        [groups, beams] and which groups are done [groups].
        """
        lengths, alive = self._lengths[slots], self._alive[slots]
        totals, parents, tokens = self._continuations(slots, values, tokens, lengths)
        at_limit = lengths + 1 >= self._limits[slots]
        ends = tokens.eq(self._end) | at_limit[:, None]
        scores, order = totals.masked_fill(ends, NEVER).topk(self._rules.beams, dim=1)
        kept = ends & alive[:, None]
        worst = self._keep_finished(slots, totals, parents, tokens, kept, lengths)

        parents, tokens = parents.gather(1, order), tokens.gather(1, order)
        packed = parents * self._vocabulary + tokens
        self._history[self._numbers[slots], self._steps(lengths)] = packed
        if ngram:
            self._guard.advance(slots, parents, tokens, lengths)
        longest = self._limits[slots] - 1 if self._never else lengths
        done = at_limit | (scores[:, 0] / self._penalties[longest] <= worst)
        if self._early:
            done |= worst > NEVER

        self._scores[slots] = scores
        self.tokens[slots] = torch.where(alive[:, None], tokens, self.tokens[slots])
        self.positions[slots] = lengths[:, None]
        self._lengths[slots] += alive  # last: ``lengths`` and ``alive`` may be views
        self._alive[slots] = alive & ~done
        return parents, done

    def _continuations(
        self, slots: Slots, values: Tensor, tokens: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The 2K best continuations of each group, best first: score, parent beam, token."""
        beams = self._rules.beams
        if beams == 1:  # the first generated token is the language, with log-probability 0
            forced = lengths.eq(1)
            values[:, 0].masked_fill_(forced, 0)
            values[:, 1].masked_fill_(forced, NEVER)
            tokens[:, 0] = torch.where(forced, self._languages[slots], tokens[:, 0])
        totals = values.view(-1, beams, 2 * beams) + self._scores[slots][:, :, None]
        totals, places = totals.flatten(1).topk(2 * beams, dim=1)
        tokens = tokens.view(lengths.shape[0], -1).gather(1, places)
        return totals, places // (2 * beams), tokens

    def _keep_finished(
        self,
        slots: Slots,
        totals: Tensor,
        parents: Tensor,
        tokens: Tensor,
        ends: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Merges what ended among the K best into the K best finished. Returns the worst of
        these, −inf while there are fewer than K."""
        beams = self._rules.beams
        scores = (totals / self._penalties[lengths][:, None]).masked_fill_(~ends, NEVER)[:, :beams]
        step = self._steps(lengths)[:, None]
        packed = (step * beams + parents[:, :beams]) * self._vocabulary + tokens[:, :beams]
        best, order = torch.cat([self._best_scores[slots], scores], dim=1).topk(beams, dim=1)
        self._best_scores[slots] = best
        self._best[slots] = torch.cat([self._best[slots], packed], dim=1).gather(1, order)
        return best[:, -1]

    def _steps(self, lengths: Tensor) -> Tensor:
        """How many selections lie behind groups of these lengths."""
        return lengths - (1 if self._rules.beams == 1 else 2)

    def outcomes(self, slots: Sequence[Slot]) -> list[tuple[Hypothesis, ...]]:
        """The finished hypotheses of groups that are done, best first."""
        index = self.tokens.new_tensor([slot.index for slot in slots])
        longest = max(slot.steps for slot in slots)
        histories = self._history[index, :longest].tolist()
        scores, best = self._best_scores[index].tolist(), self._best[index].tolist()
        return [
            self._hypotheses(history[: slot.steps], zip(*kept, strict=True))
            for slot, history, *kept in zip(slots, histories, scores, best, strict=True)
        ]

    def _hypotheses(
        self, history: Sequence[Sequence[int]], kept: Iterable[tuple[float, int]]
    ) -> tuple[Hypothesis, ...]:
        beams, skipped = self._rules.beams, 1 if self._rules.beams == 1 else 0
        parents = [[packed // self._vocabulary for packed in step] for step in history]
        tokens = [[packed % self._vocabulary for packed in step] for step in history]
        found = []
        for score, packed in islice(kept, self._rules.hypotheses):
            if score == NEVER:
                break
            place, last = divmod(packed, self._vocabulary)
            step, parent = divmod(place, beams)
            sequence = walk_back(tokens, parents, step, parent, last)[skipped:]
            if last == self._end:
                sequence.pop()
            found.append(Hypothesis(tuple(sequence), score))
        return tuple(found)
