"""Answering prompts, with a key/value cache that is released after each batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from memory_harness.configs.models import find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Rollout
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.results.replies import VETTED, Reply
from memory_harness.harness.strategies.base import Strategy
from memory_harness.harness.strategies.sampling import Sampling, sample_seed


@dataclass(frozen=True)
class Request:
    """One reply that the model is to give."""

    prompt: int
    """position in `Prepared.prompts`"""
    sample: int
    token_ids: tuple[int, ...]
    """of the prompt"""
    seed: int | None
    """None where nothing is drawn"""


def requests(config: RunConfig, data: Prepared) -> list[Request]:
    """Return what the model is to be asked: each prompt without a vetted reply, as often as it is to be answered.

    A model that classifies answers nothing.
    """
    if find_model(config.model.model).classifies:
        return []
    drawing = config.generation
    run_seed = config.data.seed if drawing.generate_seed is None else drawing.generate_seed
    wanted = []
    for i, prompt in enumerate(data.prompts):
        if prompt.vetted_reply is not None:
            continue
        for sample in range(drawing.replies_per_prompt):
            seed = None
            if drawing.temperature > 0:
                seed = sample_seed(run_seed, prompt.question, sample)
            wanted.append(Request(i, sample, prompt.tokens(), seed))
    return wanted


def vetted_replies(data: Prepared) -> list[Reply]:
    """Return the replies that people have vetted, one to each question that calls for it."""
    replies = []
    for i, prompt in enumerate(data.prompts):
        if prompt.vetted_reply is not None:
            replies.append(Reply(i, 0, prompt.vetted_reply, (), VETTED, None, True))
    return replies


def answer(
    config: RunConfig, strategy: Strategy, data: Prepared, batch: Sequence[Request], answered_by: str
) -> list[Reply]:
    """Return the replies to requests that go through the model together."""
    drawing = config.generation
    seeds = tuple(request.seed for request in batch if request.seed is not None)
    sampling = Sampling(drawing.temperature, drawing.top_p, drawing.repetition_penalty, seeds)
    prompts = [request.token_ids for request in batch]
    rows = generate(strategy, prompts, config.eval.max_new_tokens, data.tokenizer.stop_ids, sampling)
    replies = []
    for request, (ids, stopped) in zip(batch, rows, strict=True):
        text = data.tokenizer.decode(ids)
        replies.append(Reply(request.prompt, request.sample, text, tuple(ids), answered_by, request.seed, stopped))
    return replies


def generate(
    strategy: Strategy,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling,
) -> list[tuple[list[int], bool]]:
    """Return each prompt's continuation, cut before its first stop id, and whether it met one.

    Ends early when all have. The cache holds the prompts and at most `max_new_tokens` more.
    """
    stops = set(stop_ids)
    columns = [strategy.prefill(prompts, sampling)]
    running = [token not in stops for token in columns[0]]
    while any(running) and len(columns) < max_new_tokens:
        columns.append(strategy.decode())
        running = [goes_on and token not in stops for goes_on, token in zip(running, columns[-1], strict=True)]
    strategy.release()
    rows = zip(*columns, strict=True)
    return [(_before_stop(row, stops), not goes_on) for row, goes_on in zip(rows, running, strict=True)]


def complete(strategy: Strategy, rollout: Rollout) -> None:
    """Generate the completions that the model is to learn from, each as long as it may get."""
    prompts = [(0,) * length for length in rollout.prompt_lengths]
    strategy.prefill(prompts, Sampling(temperature=1.0, seeds=(0,) * len(prompts)), rolls_out=True)
    for _ in range(rollout.num_tokens - 1):
        strategy.decode()
    strategy.release()


def _before_stop(tokens: Sequence[int], stops: set[int]) -> list[int]:
    return list(takewhile(lambda token: token not in stops, tokens))
