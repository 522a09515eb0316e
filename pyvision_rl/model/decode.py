"""Continues many rows at once on the model: prefill of what is new, then one token a step.

Knows no event loop and no schedule: its owner says who joins and takes who has finished. Rows join
and leave between any two steps. Shapes: R rows, Q new tokens, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.inputs import num_images_in
from pyvision_rl.model.kv import Kept, KeptCache, RowCache
from pyvision_rl.model.policy import Policy
from pyvision_rl.model.row import Row
from pyvision_rl.model.sampling import Limits, StopStrings, sample
from pyvision_rl.types import Completion

PREFILL_TOKENS = 8192
"""Bound of one prefill forward, padding included."""


class Decoder:
    """The rows in flight, and what is kept of sessions that wait.

    Running rows, padded to the longest, and what is kept hold about `max_tokens` tokens together;
    what is kept goes first, and is computed again when it is needed.
    """

    def __init__(self, policy: Policy, max_tokens: int) -> None:
        self.rows: list[Row] = []
        self._policy = policy
        self._version = policy.version
        self._max_tokens = max_tokens
        self._cache = RowCache(policy.text_config, policy.model.dtype, policy.device)
        self._kept = KeptCache()
        self._stops: dict[tuple[str, ...], StopStrings] = {}
        self._logits = torch.empty(0, policy.vocabulary_size, device=policy.device)
        self._limits: Limits | None = None

    def num_fitting(self, rows: Sequence[Row]) -> int:
        """How many of `rows`, from the first on, may join those in flight."""
        longest = max((len(row.token_ids) for row in self.rows), default=0)
        for count, row in enumerate(rows):
            longest = max(longest, len(row.token_ids))
            if (len(self.rows) + count + 1) * (longest + 1) > self._max_tokens:
                return count
        return len(rows)

    def forget(self, session: int) -> None:
        """Free what is kept of a session that has ended."""
        self._kept.drop(session)

    def clear(self) -> None:
        """Drop all rows and all that is kept."""
        self.remove(self.rows)
        self._kept.clear()
        self._cache.release()

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Let rows take part: compute what is not known yet of their contexts.

        Of rows that open alike, as those of a group do, one is computed and the others copy it.
        """
        self._follow_weights()
        if not self.rows:
            self._cache.release()
            self._logits = self._logits[:0]
        leaders = {row.opening: row for row in reversed(rows) if row.is_opening}
        self._join([row for row in rows if not row.is_opening or leaders[row.opening] is row])
        self._join([row for row in rows if row.is_opening and leaders[row.opening] is not row])

    def _join(self, rows: Sequence[Row]) -> None:
        known = {row: self._recall(row) for row in rows}
        copied = [row for row in rows if row.length == len(row.token_ids)]
        computed = [row for row in rows if row.length < len(row.token_ids)]
        # Fresh rows apart, for they need no mask; alike lengths together, to pad little.
        computed.sort(key=lambda row: (row.length > 0, len(row.token_ids) - row.length))
        first = len(self.rows)
        self.rows += computed + copied
        self._make_room()
        for slot, row in enumerate(self.rows[first:], first):
            if kept := known[row]:
                self._cache.write(slot, kept.kv[:, :, : row.length])
        logits = [self._logits]
        logits += [self._prefill(slot, part) for slot, part in _parts(computed, first)]
        logits += [kept.logits for row in copied if (kept := known[row])]
        self._logits, self._limits = torch.cat(logits), None
        self._keep_openings(first, computed)

    def _recall(self, row: Row) -> Kept | None:
        """What is kept of the row's context; sets how much of it need not be computed."""
        kept = self._kept.get(row.session)
        if kept is None and row.is_opening:
            kept = self._kept.get(row.opening)
        if kept is None or row.token_ids[: len(kept.token_ids)] != list(kept.token_ids):
            row.length = 0
            return None
        # Without logits at its end, at least the last token is computed again.
        usable = len(row.token_ids) - (len(kept.logits) == 0)
        row.length = min(len(kept.token_ids), usable)
        return kept

    def _keep_openings(self, first: int, rows: Sequence[Row]) -> None:
        for slot, row in enumerate(rows, first):
            if row.is_opening:
                self._keep(slot, row.opening, self._logits[slot : slot + 1].clone())
        self._shrink_kept()

    def _keep(self, slot: int, key: Hashable, logits: Tensor) -> None:
        row = self.rows[slot]
        known = tuple(row.token_ids[: row.length])
        self._kept.put(key, Kept(known, self._cache.read(slot, row.length), logits))

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, Completion]]:
        """Draw one token for every row; rows that end leave, and are kept for their next turn.

        `advance` comes before the next step, and before the next join.
        """
        self._follow_weights()
        self._draw()
        finished: list[tuple[Row, Completion]] = []
        for slot, row in enumerate(self.rows):
            if finish := self._finish(row):
                text = self._policy.codec.decode(row.sampled)
                made = Completion(tuple(row.sampled), tuple(row.logprobs), text, finish)
                finished.append((row, made))
                self._keep(slot, row.session, self._logits[:0])
        self.remove([row for row, _ in finished])
        self._shrink_kept()
        return finished

    def _draw(self) -> None:
        if self._limits is None:
            params = [row.params for row in self.rows]
            self._limits = Limits.of(params, self._logits.shape[-1], self._policy.device)
        uniforms = torch.tensor([row.uniforms.draw() for row in self.rows], dtype=torch.float64)
        drawn = sample(self._logits, uniforms.to(self._policy.device), self._limits)
        tokens, logprobs = (values.tolist() for values in drawn)
        for row, token, logprob in zip(self.rows, tokens, logprobs, strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)

    def _finish(self, row: Row) -> Literal["stop", "length"] | None:
        params, codec = row.params, self._policy.codec
        if row.token_ids[-1] == codec.end_of_turn_id:
            return "stop"
        stops = self._stops.get(params.stop)
        if stops is None:
            stops = self._stops[params.stop] = StopStrings(codec.tokenizer, params.stop)
        if stops.ended_by(row.sampled_tail(stops.window)):
            return "stop"
        return "length" if len(row.logprobs) >= params.max_tokens else None

    @torch.inference_mode()
    def advance(self) -> list[Row]:
        """Feed every row its last token; returns the rows that had to give up their place.

        Those may join again: nothing that they wrote is lost.
        """
        given_up = self._give_up()
        if not self.rows:
            return given_up
        self._make_room()
        device = self._policy.device
        lengths = torch.tensor([row.length for row in self.rows], device=device)
        longest = max(row.length for row in self.rows) + 1
        self._cache.aim(0, lengths[:, None], longest)
        seen = torch.arange(longest, device=device) <= lengths[:, None]
        tokens = torch.tensor([[row.token_ids[-1]] for row in self.rows], device=device)
        places = torch.tensor([row.next_place - 1 for row in self.rows], device=device)
        embeds = self._policy.embed(tokens, ())
        hidden = self._forward(embeds, places.expand(3, -1)[..., None], seen[:, None, None])
        for row in self.rows:
            row.length += 1
        self._logits = self._policy.restrict(self._policy.model.lm_head(hidden[:, -1]))
        return given_up

    def _give_up(self) -> list[Row]:
        """The last rows leave while all of them would outgrow the bound."""
        given_up: list[Row] = []
        while len(self.rows) > 1 and not self._is_within_bound():
            row = self.rows[-1]
            self._keep(len(self.rows) - 1, row.session, self._logits[:0])
            row.is_opening = False
            self.remove([row])
            given_up.append(row)
        return given_up

    def _is_within_bound(self) -> bool:
        return len(self.rows) * (max(row.length for row in self.rows) + 1) <= self._max_tokens

    def _prefill(self, first: int, rows: Sequence[Row]) -> Tensor:
        """Compute what is new in `rows`, which lie from slot `first` on; returns their logits."""
        device = self._policy.device
        starts = torch.tensor([row.length for row in rows], device=device)
        counts = torch.tensor([len(row.token_ids) - row.length for row in rows], device=device)
        size = int(counts.max())
        tokens = torch.full((len(rows), size), self._policy.pad_id)
        places = torch.zeros(3, len(rows), size, dtype=torch.long)
        images: list[Image] = []
        for index, row in enumerate(rows):
            new = row.token_ids[row.length :]
            tokens[index, : len(new)] = torch.tensor(new)
            places[:, index, : len(new)] = torch.from_numpy(row.places_from(row.length))
            images += row.images[self._num_images_known(row) :]
        cells = starts[:, None] + torch.arange(size, device=device)
        spare = self._cache.row_tokens - 1
        longest = max(len(row.token_ids) for row in rows)
        self._cache.aim(first, cells.clamp(max=spare), longest)
        # Fresh rows need no mask: causal attention never sees padding that stands behind.
        seen = torch.arange(longest, device=device) <= cells[..., None]
        mask = seen[:, None] if rows[0].length else None
        embeds = self._policy.embed(tokens.to(device), self._policy.vision.features(images))
        hidden = self._forward(embeds, places.to(device), mask)
        for row in rows:
            row.length = len(row.token_ids)
        last = hidden[torch.arange(len(rows), device=device), counts - 1]
        return self._policy.restrict(self._policy.model.lm_head(last))

    def _num_images_known(self, row: Row) -> int:
        past = row.token_ids[: row.length]
        return num_images_in(past, row.images, self._policy.codec.image_pad_id)

    def _forward(self, embeds: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        return self._policy.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=places,
            attention_mask={"full_attention": mask},
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state

    @torch.inference_mode()
    def remove(self, gone: Collection[Row]) -> None:
        """Take rows out; the last row moves into the place of one that left."""
        leaving = set(gone)
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot] not in leaving:
                continue
            last = self.rows.pop()
            if slot < len(self.rows):
                self._cache.move(len(self.rows), slot, last.length)
                self.rows[slot] = last
        self._limits = None

    def _make_room(self) -> None:
        longest = max((len(row.token_ids) for row in self.rows), default=0)
        # One cell more than any row fills: the padding of a prefill goes there.
        self._cache.reserve(len(self.rows), longest + 1)
        self._shrink_kept()

    def _shrink_kept(self) -> None:
        self._kept.shrink(self._max_tokens - len(self.rows) * self._cache.row_tokens)

    def _follow_weights(self) -> None:
        """Forget what old weights computed. They must not change while a completion is drawn."""
        if self._version == self._policy.version:
            return
        if self.rows:
            raise PyVisionError(f"weights changed while {len(self.rows)} completions were drawn")
        self._kept.clear()
        self._version = self._policy.version


def _parts(rows: Sequence[Row], first: int) -> Iterator[tuple[int, list[Row]]]:
    """Cut rows, and the slots from `first` on that they lie in, into prefill forwards.

    Rows come fresh ones first and short ones first; a part never mixes fresh rows with others.
    """
    part: list[Row] = []
    for slot, row in enumerate(rows, first):
        size = len(row.token_ids) - row.length
        is_other = bool(part) and (part[0].length > 0) != (row.length > 0)
        if is_other or (part and (len(part) + 1) * size > PREFILL_TOKENS):
            yield slot - len(part), part
            part = []
        part.append(row)
    if part:
        yield first + len(rows) - len(part), part
