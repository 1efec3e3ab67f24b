"""Examples into batches: what an optimizer step holds and how far each sequence is padded.

Shapes: B sequences in a batch, L tokens in each, padding included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.records import BatchShape

Item = TypeVar("Item")

_length = attrgetter("longest")
_padded_tokens = attrgetter("shape.padded_tokens")

IGNORE_INDEX = -100
"""Label of a token that takes no part in the loss. Source: `ignore_index` of torch.nn.functional.cross_entropy."""

STEPS_PER_WINDOW = 64
"""Optimizer steps whose samples are sorted together: enough to find like lengths, few enough to keep an epoch mixed."""


@dataclass(frozen=True)
class Example:
    """One sample in tokens, after truncation; `input_ids` is None where lengths are only estimated."""

    num_tokens: int
    num_prompt_tokens: int
    """leading tokens that are masked in the labels"""
    input_ids: tuple[int, ...] | None = None
    rejected: Example | None = None
    """the same prompt with an answer that this one is preferred to"""

    @property
    def sequences(self) -> tuple[Example, ...]:
        """Return what of it goes through the model."""
        return (self,) if self.rejected is None else (self, self.rejected)

    @property
    def longest(self) -> int:
        """Return the tokens of the longer one."""
        return max(sequence.num_tokens for sequence in self.sequences)

    @property
    def prompt(self) -> tuple[int, ...]:
        """Return the prompt's ids; zeros in their number where only that is known, and one where there is none."""
        length = max(1, self.num_prompt_tokens)
        return (0,) * length if self.input_ids is None else self.input_ids[:length]

    @property
    def num_target_tokens(self) -> int:
        """Tokens that the loss is taken over; the first token of a sequence is never predicted."""
        return max(0, self.num_tokens - max(1, self.num_prompt_tokens))


@dataclass(frozen=True)
class Rollout:
    """What the model generates before it learns from it."""

    prompt_lengths: tuple[int, ...]
    """one for each completion; the longest is that to which all are padded"""
    num_tokens: int
    """of each completion, as long as it may get"""
    is_scored: bool
    """whether log-probabilities are computed before the update: of the policy that generated, of the reference"""

    @property
    def shape(self) -> BatchShape:
        """Return the prompts' shape."""
        return BatchShape(len(self.prompt_lengths), max(self.prompt_lengths), self.prompt_lengths, 0)


@dataclass(frozen=True)
class Batch:
    """Examples that go through the model together, and the shape they take there."""

    shape: BatchShape
    examples: tuple[Example, ...]
    """one for each sequence"""
    per_sample: int = 1
    """sequences that stay together: 2 of a pair"""
    rollout: Rollout | None = None
    """what is generated before this batch: its completions, and those of the batches after it that have none"""
    is_packed: bool = False
    """whether the examples lie end to end in one sequence; the shape's lengths are theirs"""

    @property
    def samples(self) -> list[Example]:
        """Return the examples that the sequences are of."""
        return list(self.examples[:: self.per_sample])

    @property
    def has_padding(self) -> bool:
        """Return whether any sequence is shorter than the batch; what ends a packed one stands for another sample."""
        return not self.is_packed and min(self.shape.lengths) < self.shape.padded_length

    @property
    def num_real_tokens(self) -> int:
        """Return how many tokens the sequences have without padding."""
        return sum(self.shape.lengths)

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the lengths of what lies end to end in a packed sequence: its samples, and the padding after them."""
        rest = self.shape.padded_length - self.num_real_tokens
        return (*self.shape.lengths, rest) if rest else self.shape.lengths

    @property
    def starts(self) -> npt.NDArray[np.int32]:
        """Return where each part of a packed sequence begins, and where the last one ends; int32 (parts + 1)."""
        return np.cumsum([0, *self.parts], dtype=np.int32)

    def arrays(self, pad_id: int, vocab_size: int, seed: int = 0) -> dict[str, npt.NDArray[np.int64]]:
        """Return `input_ids`, `attention_mask` and `labels`, each int64 (B, L), right padded.

        Packed, with `position_ids` in place of the mask: they begin anew with each part.
        Labels are -100 on prompts and padding. Examples without ids get random ones below `vocab_size`, from `seed`.
        """
        if self.is_packed:
            return self._packed_arrays(pad_id, vocab_size, seed)
        shape = (self.shape.batch_size, self.shape.padded_length)
        input_ids_BL = np.full(shape, pad_id, dtype=np.int64)
        attention_mask_BL = np.zeros(shape, dtype=np.int64)
        labels_BL = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        rng = np.random.default_rng(seed)
        for row, example in enumerate(self.examples):
            start, end = example.num_prompt_tokens, example.num_tokens
            if example.input_ids is None:
                input_ids_BL[row, :end] = rng.integers(0, vocab_size, end)
            else:
                input_ids_BL[row, :end] = example.input_ids
            attention_mask_BL[row, :end] = 1
            labels_BL[row, start:end] = input_ids_BL[row, start:end]
        return {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL, "labels": labels_BL}

    def _packed_arrays(self, pad_id: int, vocab_size: int, seed: int) -> dict[str, npt.NDArray[np.int64]]:
        samples = [_batch_of_length([example], example.num_tokens) for example in self.examples]
        fields = [sample.arrays(pad_id, vocab_size, seed + number) for number, sample in enumerate(samples)]
        for own in fields:
            own["labels"][:, 0] = IGNORE_INDEX  # which the sample before does not predict
        shape = (1, self.shape.padded_length)
        input_ids_BL = np.full(shape, pad_id, dtype=np.int64)
        labels_BL = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        input_ids_BL[:, : self.num_real_tokens] = np.concatenate([own["input_ids"] for own in fields], axis=1)
        labels_BL[:, : self.num_real_tokens] = np.concatenate([own["labels"] for own in fields], axis=1)
        position_ids_BL = np.concatenate(list(map(np.arange, self.parts)))[np.newaxis]
        return {"input_ids": input_ids_BL, "position_ids": position_ids_BL, "labels": labels_BL}


def train_steps(examples: Sequence[Example], config: RunConfig, epoch: int) -> list[tuple[Batch, ...]]:
    """Return the epoch's optimizer steps, each a tuple of micro-batches; every example is in exactly one of them.

    Where the configuration gives the batches, these are the epoch's, of tokens by chance.
    A step holds train_batch_size x gradient_accumulation examples, the last one the rest. The order depends on the seed
    and the epoch alone; the number of GPUs decides only how a step's examples are cut into micro-batches, and packing
    how they are put together: its steps hold the samples that those of `dynamic` do.
    """
    size = config.train.train_batch_size
    step_size = size * config.train.gradient_accumulation
    if config.data.batches is not None:
        batches = [_given_batch(shape, config) for shape in config.data.given_batches]
        given = [_balanced(list(step), config) for step in _chunks(batches, config.train.gradient_accumulation)]
        return _rolled_out(given, config)
    rng = _shuffler(config, epoch)
    shuffled = [examples[i] for i in rng.permutation(len(examples))]
    steps: list[tuple[Batch, ...]] = []
    if config.train.objective == "grpo":
        prompts_per_step = step_size // config.train.num_generations
        like = _steps_of_like_length(shuffled, prompts_per_step, rng) if config.data.batching == "bucketed" else None
        chunks = like or _chunks(shuffled, prompts_per_step)
        return _rolled_out([_of_completions(prompts, config, size) for prompts in chunks], config)
    if config.data.batching == "bucketed":
        cap = _token_cap(config, size)
        for step in _steps_of_like_length(shuffled, step_size, rng):
            steps.append(_balanced(_split_under_cap(step, config, cap, max_size=step_size), config))
    elif config.data.batching == "packed":
        for step in _chunks(shuffled, step_size):
            steps.append(_balanced(_packed_under_cap(step, config, _token_cap(config, size)), config))
    else:
        for step in _chunks(shuffled, step_size):
            steps.append(_balanced(_batches_of(step, config, size), config))
    return steps


def _given_batch(shape: tuple[int, int], config: RunConfig) -> Batch:
    examples = given_examples(*shape, config)
    if config.data.batching == "packed":
        return packed_batch(examples, shape[0] * shape[1])
    return _batch_of_length(examples, shape[1])


def _of_completions(prompts: Sequence[Example], config: RunConfig, size: int) -> tuple[Batch, ...]:
    """Return batches of the completions of these prompts, all of one length, as TRL pads what is generated at once."""
    length = _padded_length(max(map(_length, prompts)), config)
    sequences = [prompt for prompt in prompts for _ in range(config.train.num_generations)]
    return tuple(_batch_of_length(part, length) for part in _chunks(sequences, size))


def _rolled_out(steps: Sequence[tuple[Batch, ...]], config: RunConfig) -> list[tuple[Batch, ...]]:
    """Return the steps; where they learn from completions, with what is generated, each as often as it is learned."""
    train = config.train
    if train.objective != "grpo":
        return list(steps)
    rolled_out = []
    for first, *others in steps:
        rolled_out.append((_with_rollout(first, [first, *others], config), *others))
        rolled_out += [(first, *others)] * (train.num_iterations - 1)
    return rolled_out


def _with_rollout(batch: Batch, batches: Sequence[Batch], config: RunConfig) -> Batch:
    """Return the batch with the generation of the completions of all the batches."""
    train, width = config.train, max(it.shape.padded_length for it in batches) - config.train.max_completion_length
    lengths = [example.num_prompt_tokens for it in batches for example in it.examples]
    padded = tuple(width if length == max(lengths) else length for length in lengths)
    is_scored = train.has_reference or train.num_iterations > 1
    return replace(batch, rollout=Rollout(padded, train.max_completion_length, is_scored))


def _token_cap(config: RunConfig, batch_size: int) -> int:
    return config.data.max_batch_tokens or batch_size * config.data.max_length


def _balanced(micro_batches: list[Batch], config: RunConfig) -> tuple[Batch, ...]:
    """Return a step's micro-batches such that each GPU can get as many of them: as far as they can be cut for that.

    With several GPUs the longest come first, so that those that run at the same time are alike.
    """
    batches, num_gpus = list(micro_batches), config.device.data_parallel_size
    if num_gpus == 1:
        return tuple(batches)
    while len(batches) % num_gpus:
        divisible = [batch for batch in batches if len(batch.samples) > 1]
        if not divisible:
            break
        extreme = max if len(batches) < num_gpus else min
        position = batches.index(extreme(divisible, key=_padded_tokens))
        batches[position : position + 1] = halves(batches[position], config)
    return tuple(sorted(batches, key=_padded_tokens, reverse=True))


def unshuffled(examples: Sequence[Example], config: RunConfig, epoch: int) -> list[Example]:
    """Return the examples arranged so that the epoch's `train_steps` takes them in the order given here.

    Only where batches are not bucketed.
    """
    arranged = list(examples)
    for example, i in zip(examples, _shuffler(config, epoch).permutation(len(examples)), strict=True):
        arranged[i] = example
    return arranged


def _shuffler(config: RunConfig, epoch: int) -> np.random.Generator:
    return np.random.default_rng((config.data.seed, epoch))


def eval_batches(examples: Sequence[Example], config: RunConfig) -> list[Batch]:
    """Return the evaluation batches: in order of the examples, or longest first and under the cap when bucketed."""
    size = config.eval.eval_batch_size
    if config.train.objective == "grpo":
        per_batch = size // config.train.num_generations
        groups = [_of_completions(prompts, config, size) for prompts in _chunks(examples, per_batch)]
        return [_with_rollout(batch, [batch], config) for (batch,) in groups]
    if config.data.batching in ("bucketed", "packed"):
        return _split_under_cap(examples, config, _token_cap(config, size), max_size=size)
    return _batches_of(examples, config, size)


def _steps_of_like_length(
    shuffled: Sequence[Example], step_size: int, rng: np.random.Generator
) -> list[Sequence[Example]]:
    """Cut shuffled examples into steps of like lengths, in random order; the incomplete step stays last."""
    num_full = len(shuffled) // step_size * step_size
    full, rest = shuffled[:num_full], shuffled[num_full:]
    sorted_steps: list[Sequence[Example]] = []
    for window in _chunks(full, step_size * STEPS_PER_WINDOW):
        sorted_steps += _chunks(sorted(window, key=_length), step_size)
    steps = [sorted_steps[i] for i in rng.permutation(len(sorted_steps))]
    if rest:
        steps.append(rest)
    return steps


def _split_under_cap(examples: Iterable[Example], config: RunConfig, cap: int, max_size: int) -> list[Batch]:
    """Group examples, longest first, into as few batches as keep to `max_size` examples and `cap` padded tokens.

    An example above the cap is alone in its batch.
    """
    groups: list[list[Example]] = []
    most = 0  # examples that the last group can take
    for example in sorted(examples, key=_length, reverse=True):
        if groups and len(groups[-1]) < most:
            groups[-1].append(example)
        else:
            groups.append([example])
            most = min(max_size, cap // (_padded_length(example.longest, config) * len(example.sequences)))
    return [_batch(group, config) for group in groups]


def _packed_under_cap(examples: Iterable[Example], config: RunConfig, cap: int) -> list[Batch]:
    """Pack examples into few sequences of at most `cap` tokens: the longest first, each where there is room first."""
    groups: list[list[Example]] = []
    rooms: list[int] = []
    for example in sorted(examples, key=_length, reverse=True):
        place = next((i for i, room in enumerate(rooms) if example.num_tokens <= room), len(rooms))
        if place == len(rooms):
            groups.append([])
            rooms.append(cap)
        groups[place].append(example)
        rooms[place] -= example.num_tokens
    return [_packed(group, config, cap) for group in groups]


def _packed(examples: Sequence[Example], config: RunConfig, cap: int) -> Batch:
    multiple = config.data.pad_to_multiple_of
    return packed_batch(examples, min(cap, -(-sum(map(_length, examples)) // multiple) * multiple))


def packed_batch(examples: Sequence[Example], length: int) -> Batch:
    """Return a batch of one sequence that holds the examples, of at least so many tokens."""
    lengths = tuple(map(_length, examples))
    targets = sum(map(attrgetter("num_target_tokens"), examples))
    return Batch(BatchShape(1, max(length, sum(lengths)), lengths, targets), tuple(examples), is_packed=True)


def halves(batch: Batch, config: RunConfig) -> list[Batch]:
    """Return the batch cut in two, or itself alone where it is one example."""
    if len(batch.samples) == 1:
        return [batch]
    parts = in_halves(batch.samples)
    if batch.is_packed:
        return [_packed(part, config, batch.shape.padded_length) for part in parts]
    return [_batch(part, config) for part in parts]


def in_halves(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Return the items in two parts, the first the larger by one of an odd number; one item as it is."""
    if len(items) == 1:
        return [items]
    middle = -(-len(items) // 2)
    return [items[:middle], items[middle:]]


def _batches_of(examples: Sequence[Example], config: RunConfig, size: int) -> list[Batch]:
    return [_batch(chunk, config) for chunk in _chunks(examples, size)]


def _batch(examples: Sequence[Example], config: RunConfig) -> Batch:
    longest = max(map(_length, examples))
    return _batch_of_length(examples, _padded_length(longest, config))


def _batch_of_length(examples: Sequence[Example], length: int) -> Batch:
    """Return a batch; the loss of pairs is taken over pairs, and not over their tokens."""
    sequences = tuple(chain.from_iterable(example.sequences for example in examples))
    per_sample = len(sequences) // len(examples)
    targets = sum(map(attrgetter("num_target_tokens"), examples)) if per_sample == 1 else len(examples)
    lengths = tuple(map(attrgetter("num_tokens"), sequences))
    return Batch(BatchShape(len(sequences), length, lengths, targets), sequences, per_sample)


def given_examples(size: int, length: int, config: RunConfig) -> list[Example]:
    """Return the examples of a batch that the configuration gives: of tokens by chance, none of them a prompt's."""
    rejected = Example(length, 0) if config.train.compares_answers else None
    num_prompt_tokens = length - config.train.max_completion_length if config.train.objective == "grpo" else 0
    return [Example(length, num_prompt_tokens, rejected=rejected)] * size


def _padded_length(longest: int, config: RunConfig) -> int:
    """Return the length to pad to: max_length, or the longest rounded up; never shorter than the longest."""
    data = config.data
    multiple = data.max_length if data.batching == "padded" else data.pad_to_multiple_of
    return max(longest, min(-(-longest // multiple) * multiple, data.max_length))


def _chunks(examples: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (examples[i : i + size] for i in range(0, len(examples), size))


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return ids and, where prompts differ in length, the mask; int64 (B, L).

    Prompts end at the same column, so that decoding continues all of them there.
    """
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    if mask.all():
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": mask}
