"""`RunConfig`: everything that decides what a run does, as frozen dataclasses.

Every field is a command-line flag of the same name (`max_length` -> `--max-length`), so names are unique across
sections. The line under a field is its help text. Precedence: flag, then preset, then the default written here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from memory_harness.configs.models import ALL_LINEAR, MLP_LAYERS

SDPA_KERNELS = ("flash", "memory_efficient", "math")
"""those of torch.nn.functional.scaled_dot_product_attention"""


class Recomputed(NamedTuple):
    """What computes its activations again in the backward pass of a batch."""

    layers: int
    """decoder layers, from the first"""
    blocks: int
    """feed-forward blocks, of the layers after those; spread over them where activations are offloaded"""


@dataclass(frozen=True)
class ModelConfig:
    """The base model, how it is quantised and prepared."""

    model: str = field(default="llama-3.1-8b", metadata={"metavar": "NAME|DIR|USER/NAME"})
    """name of a shape in models.toml, a local directory that holds a checkpoint, or USER/NAME of the Hugging Face Hub,
    from the local cache or with --download"""
    random_weights: bool = False
    """train random weights although there may be a checkpoint: for benchmarks, where the loss means nothing"""
    strategy: Literal["qlora", "unsloth"] = "qlora"
    """how the model is loaded, adapted and trained"""
    quantization: Literal["nf4", "fp4", "int8", "none"] = "nf4"
    """bitsandbytes' 4-bit NF4 or FP4 or 8-bit weights, or none (weights stay in the compute dtype)"""
    llm_int8_threshold: float = field(default=6.0, metadata={"came_later": True})
    """8-bit products leave columns with larger inputs in 16 bits; 0 leaves none"""
    loader: Literal["stepwise", "transformers", "host"] = field(default="stepwise", metadata={"came_later": True})
    """how weights get to the device: stepwise, layer by layer; transformers, by its from_pretrained with a device_map;
    host, into host memory first, from where model.to("cuda") moves them"""
    double_quant: bool = True
    """quantise the quantisation constants too"""
    quantise_experts: bool = field(default=False, metadata={"came_later": True})
    """hold the experts of a mixture, which bitsandbytes leaves as they are, in 4 bits too"""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """compute dtype: autocast runs in it, unquantised weights load in it"""
    weights_dtype: Literal["auto", "float32", "float16", "bfloat16"] = field(
        default="auto", metadata={"came_later": True}
    )
    """type of the weights that are not quantised; auto: the compute dtype"""
    autocast: Literal["auto", "none"] = field(default="auto", metadata={"came_later": True})
    """mixed precision: auto computes in the dtype whatever tensors are of; none, in what each tensor is of"""
    kbit_upcast: bool = False
    """cast embeddings, output head and norms to float32, as peft's prepare_model_for_kbit_training does"""
    gradient_checkpointing: bool = True
    """recompute each layer's activations in the backward pass instead of keeping them"""
    use_reentrant: bool = field(default=False, metadata={"came_later": True})
    """checkpoint as torch.utils.checkpoint did first: a layer's graph is built in the backward pass alone"""
    recompute: str = field(default="all", metadata={"metavar": "auto|all|none|N+M|TOKENS:N+M,...", "came_later": True})
    """decoder layers whose activations gradient checkpointing computes again: all, none, the first N, and on the fast
    path the feed-forward blocks of M more; or by the padded tokens of a batch, such as 1024:0,4096:0+16,8192:16+16
    (beyond the last: all); auto: the fewest that fit, found by simulation"""
    offload_activations: bool = False
    """keep in host memory, until the backward pass, what layers save that recompute as a whole, and on the fast path
    what attention saves where the feed-forward block alone recomputes"""
    embeddings_on_host: bool = False
    """keep the input embeddings in host memory; only the rows that a batch needs are copied to the device"""
    tiled_mlp: bool = False
    """compute feed-forward blocks over mlp_chunk_tokens tokens at a time"""
    mlp_chunk_tokens: int = 1024
    """most tokens that a tiled feed-forward block computes at once"""
    fast_path: Literal["off", "torch", "liger"] = field(default="off", metadata={"came_later": True})
    """compute each 4-bit product with its adapter as one function, which keeps only what the adapter's gradients need,
    and each feed-forward block as two; liger: norms, rotary embeddings and SwiGLU by liger-kernel too"""
    cuda_graphs: Literal["none", "auto"] = field(default="none", metadata={"came_later": True})
    """auto: on the fast path, replay the passes of short micro-batches that recompute nothing as CUDA graphs, one for
    each length to which they are padded; left off, with the reason, where something forbids it"""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash", "memory_efficient", "math"] = "auto"
    """transformers' attention: eager, sdpa, or flash_attention_2, which cuts padding out; flash, memory_efficient and
    math are kernels of sdpa, else it takes the one that PyTorch picks on the card; auto is sdpa, eager without one"""
    sdpa_backends: tuple[str, ...] = field(default=(), metadata={"came_later": True})
    """kernels that sdpa may take, the most wanted first, as sdpa_kernel(..., set_priority=True) has them, such as
    memory_efficient,flash,math, or cudnn first where the card has it; the last is math, which takes every call"""
    use_cache: bool = False
    """build a key/value cache outside generation too, as most published model configurations ask for"""
    expand_kv: bool = False
    """repeat keys and values for every query head, so that unpadded batches avoid the math kernel on older cards"""

    @property
    def recomputes_blocks(self) -> bool:
        """Return whether feed-forward blocks can compute again while the rest of their layers is kept."""
        return self.fast_path != "off" and not self.tiled_mlp

    def recomputed(self, num_layers: int, tokens: int) -> Recomputed:
        """Return what of so many layers computes its activations again in a batch of so many tokens.

        Before `auto` has been found out, all do.
        """
        if not self.gradient_checkpointing:
            return Recomputed(0, 0)
        for most_tokens, layers, blocks in self.recompute_rules:
            if most_tokens is None or tokens <= most_tokens:
                layers = min(layers, num_layers)
                return Recomputed(layers, min(blocks, num_layers - layers))
        return Recomputed(num_layers, 0)

    @property
    def recompute_rules(self) -> tuple[tuple[int | None, int, int], ...]:
        """Return what --recompute says: up to how many tokens, how many layers, how many feed-forward blocks.

        Raises:
            ValueError: written otherwise.
        """
        text = self.recompute.strip()
        if text in ("all", "auto"):
            return ()
        if text == "none":
            return ((None, 0, 0),)
        whole = re.fullmatch(r"(\d+)(?:\+(\d+))?", text)
        if whole:
            return ((None, int(whole[1]), int(whole[2] or 0)),)
        found = [re.fullmatch(r"([1-9]\d*):(\d+)(?:\+(\d+))?", part.strip()) for part in text.split(",")]
        rules = [(int(match[1]), int(match[2]), int(match[3] or 0)) for match in found if match]
        limits = [rule[0] for rule in rules]
        if len(rules) < len(found) or limits != sorted(set(limits)):
            raise ValueError("is neither auto, all, none, N nor N+M, nor TOKENS:N+M,... with rising tokens")
        return tuple(rules)

    @property
    def attention_implementation(self) -> str:
        """Return what transformers calls the attention: `auto`, `eager`, `sdpa` or `flash_attention_2`."""
        return "sdpa" if self.attention in SDPA_KERNELS else self.attention

    @property
    def sdpa_kernel(self) -> str:
        """Return the kernels that scaled_dot_product_attention is to take, in order; `auto` where PyTorch picks."""
        if self.sdpa_backends:
            return ",".join(self.sdpa_backends)
        return self.attention if self.attention in SDPA_KERNELS else "auto"

    @property
    def casts_to_float32(self) -> bool:
        """Return whether what is not quantised becomes float32: without k-bit weights there is no k-bit preparation."""
        return self.kbit_upcast and self.quantization != "none"


@dataclass(frozen=True)
class LoraConfig:
    """The adapter."""

    lora_rank: int = 8
    """rank r of the adapter matrices"""
    lora_alpha: int = 16
    """scale: the adapter's output is multiplied by alpha / r"""
    lora_dropout: float = 0.05
    """dropout on the adapter's input, 0 to 1"""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """linear layers that get an adapter, comma-separated; all-linear takes those of every block; a model that lacks the
    default's gets peft's choice for its architecture, else its attention's"""
    lora_bias: Literal["none", "all", "lora_only"] = field(default="none", metadata={"came_later": True})
    """which biases are trained beside the adapter"""
    use_rslora: bool = field(default=False, metadata={"came_later": True})
    """scale by alpha / sqrt(r)"""
    use_dora: bool = field(default=False, metadata={"came_later": True})
    """train the magnitude of each row of the weights apart from their direction"""
    init_lora_weights: str = field(default="default", metadata={"metavar": "NAME", "came_later": True})
    """how the adapter begins: default, gaussian, orthogonal, or by decomposing the weights: pissa, pissa_niter_16 (or
    another number), olora"""
    rank_pattern: str | None = field(default=None, metadata={"metavar": "NAME=RANK,...", "came_later": True})
    """other ranks for some layers, by the end of their name or a pattern"""
    alpha_pattern: str | None = field(default=None, metadata={"metavar": "NAME=ALPHA,...", "came_later": True})
    """other scales for some layers"""
    modules_to_save: tuple[str, ...] = field(default=(), metadata={"came_later": True})
    """layers that are trained in full beside the adapter, such as embed_tokens,lm_head"""
    adapter_dtype: Literal["float32", "auto"] = field(default="float32", metadata={"came_later": True})
    """float32, as peft casts adapters by default; auto: of the type of the layer they stand beside"""

    @property
    def decomposes_weights(self) -> bool:
        """Whether the adapter begins as a part of the weights, which then lack it."""
        return self.init_lora_weights.startswith(("pissa", "olora"))

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each layer of --rank-pattern. Raises ValueError: not written as NAME=RANK,..."""
        return _numbers_by_name(self.rank_pattern)

    @property
    def alphas(self) -> dict[str, int]:
        """The alpha of each layer of --alpha-pattern. Raises ValueError: not written as NAME=ALPHA,..."""
        return _numbers_by_name(self.alpha_pattern)


MAX_DIGITS = 6
"""of a rank or an alpha: no layer of a known model has a side of a million"""


def _numbers_by_name(text: str | None) -> dict[str, int]:
    numbers = {}
    for part in (text or "").split(",") if text is not None else ():
        name, equals, number = part.rpartition("=")
        if not equals or not name.strip() or not number.strip().isdecimal() or not number.strip(" 0"):
            raise ValueError(f"{part.strip()!r} is no NAME=NUMBER, such as q_proj=16")
        try:
            re.compile(name.strip())
        except re.error as error:
            raise ValueError(f"{name.strip()!r} is no pattern ({error})") from None
        if len(number.strip()) > MAX_DIGITS:
            raise ValueError(f"{part.strip()!r} is more than any layer has")
        numbers[name.strip()] = int(number)
    return numbers


@dataclass(frozen=True)
class DataConfig:
    """The corpus and how it becomes batches."""

    data: str | None = field(default=None, metadata={"metavar": "FILE|USER/NAME"})
    """CSV with the columns Topics, Question-Title, Questions, Answers, or a file or folder of another format: csv, tsv,
    json, jsonl, txt (gzipped too), parquet, a folder of `datasets`, or USER/NAME of the Hugging Face Hub, from the
    local cache or with --download; without it a synthetic corpus is made"""
    data_format: Literal[
        "auto", "messages", "sharegpt", "preference", "alpaca", "prompt-completion", "question-answer", "text"
    ] = field(default="auto", metadata={"came_later": True})
    """what rows of another format hold; auto tells it by their columns, and the report says what it took"""
    columns: str | None = field(default=None, metadata={"metavar": "PART=COLUMN,...", "came_later": True})
    """which columns of another format are question, answer, context and system, such as question=Q,answer=A"""
    data_style: Literal["auto", "bengali-empathy", "plain"] = field(default="auto", metadata={"came_later": True})
    """bengali-empathy: cleaned, with a system prompt and reflective prefixes; plain: as it is; auto: plain for rows of
    another format"""
    samples: int | None = None
    """rows to use, from the head of the corpus; all when not set, or where rows of another format are fewer"""
    max_length: int = 2048
    """longest sequence in tokens; longer ones are truncated"""
    eval_fraction: float = 0.2
    """share of the samples held out for evaluation, between 0 and 1"""
    batching: Literal["padded", "dynamic", "bucketed", "packed"] = "bucketed"
    """padded: every sample to max_length; dynamic: to the longest of its batch; bucketed: like lengths together;
    packed: the samples of a step end to end in as few sequences as hold them, each seeing itself alone; evaluated as
    bucketed"""
    max_batch_tokens: int | None = None
    """cap on padded tokens in one micro-batch (bucketed and packed); batch size x max_length when not set"""
    pad_to_multiple_of: int = 64
    """lengths of batches that are not padded to max_length are rounded up to a multiple of this many tokens"""
    tokenizer: str | None = field(default=None, metadata={"metavar": "DIR"})
    """local directory with the model's tokenizer; looked up beside the model when not set"""
    batches: str | None = field(default=None, metadata={"metavar": "SIZExLENGTH,...", "came_later": True})
    """train on exactly these micro-batches, in this order, instead of a corpus: such as 2x1024,1x512"""
    train_on_prompts: bool = field(default=False, metadata={"came_later": True})
    """let the training loss count the tokens of prompts too; that of evaluation counts answers alone"""
    seed: int = 42
    """seed of the corpus, the split, the shuffling and the weights"""

    @property
    def given_batches(self) -> tuple[tuple[int, int], ...]:
        """Return the size and length of each of --batches. Raises ValueError: one is not written as 2x1024."""
        parts = () if self.batches is None else self.batches.split(",")
        found = [re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", part.strip()) for part in parts]
        if not all(found):
            raise ValueError(f"{parts[found.index(None)].strip()!r} is no SIZExLENGTH, such as 2x1024")
        return tuple((int(match[1]), int(match[2])) for match in found if match)


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    finetuning_type: Literal["lora", "full"] = field(default="lora", metadata={"came_later": True})
    """lora trains an adapter; full, every weight"""
    objective: Literal["sft", "dpo", "ipo", "simpo", "orpo", "cpo", "grpo"] = field(
        default="sft", metadata={"came_later": True}
    )
    """sft predicts the answer's tokens; grpo learns from completions that the model generates, and is simulated only;
    the others prefer chosen answers to rejected ones, and a batch is of pairs: dpo and ipo against the model as it was,
    the others without a reference"""
    beta: float | None = field(default=None, metadata={"came_later": True})
    """how strongly answers are preferred, or with grpo, how much straying from the model as it was costs; the
    objective's usual one when none"""
    num_generations: int = field(default=8, metadata={"came_later": True})
    """completions that grpo generates of each prompt; a step has train_batch_size x gradient_accumulation of them"""
    max_completion_length: int = field(default=512, metadata={"came_later": True})
    """tokens of each completion of grpo, as long as they may get; with its prompt, at most max_length"""
    num_iterations: int = field(default=1, metadata={"came_later": True})
    """optimizer steps of grpo on the same completions"""
    simpo_gamma: float = field(default=0.5, metadata={"came_later": True})
    """the margin that simpo wants between the two answers"""
    epochs: int = 2
    """passes over the training split"""
    train_batch_size: int = 1
    """sequences in one micro-batch"""
    gradient_accumulation: int = 2
    """micro-batches in one optimizer step"""
    learning_rate: float = 2e-4
    """peak learning rate"""
    warmup_ratio: float = 0.03
    """share of the steps over which the learning rate rises, 0 to 1"""
    warmup_steps: int | None = field(default=None, metadata={"came_later": True})
    """steps over which it rises, instead of a share of them"""
    schedule: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
    ] = "linear"
    """how the learning rate goes on after the warm-up: linear and cosine fall to zero, without a step at zero; the
    others are transformers' of the same names"""
    schedule_args: str | None = field(default=None, metadata={"metavar": "KEY=VALUE,...", "came_later": True})
    """transformers' lr_scheduler_kwargs of those others, such as num_cycles=2, min_lr_rate=0.1, num_decay_steps=100"""
    optimizer: str = field(default="adamw", metadata={"metavar": "NAME"})
    """adamw (PyTorch's, with its defaults), a name of transformers' --optim, such as adamw_torch_fused, adafactor,
    paged_adamw_8bit, lion_8bit or ademamix, or muon"""
    weight_decay: float | None = field(default=None, metadata={"came_later": True})
    """decay of weights that are no biases or norms; when not set 0, but 0.01 of all weights for adamw, adamw_8bit and
    paged_adamw_8bit"""
    adam_beta1: float = field(default=0.9, metadata={"came_later": True})
    """decay of the mean of gradients, where the optimizer keeps one"""
    adam_beta2: float = field(default=0.999, metadata={"came_later": True})
    """decay of the mean of their squares"""
    adam_epsilon: float = field(default=1e-8, metadata={"came_later": True})
    """added to the root that AdamW and ademamix divide by"""
    optim_args: str | None = field(default=None, metadata={"metavar": "KEY=VALUE,...", "came_later": True})
    """what else the optimizer takes, such as momentum=0.9 for sgd"""
    neftune_noise_alpha: float | None = field(default=None, metadata={"came_later": True})
    """add noise of this strength to the embeddings in training"""
    label_smoothing_factor: float = field(default=0.0, metadata={"came_later": True})
    """share of each target that is spread over all tokens, 0 to less than 1"""
    max_grad_norm: float | None = 1.0
    """gradients are clipped to this norm; not clipped when none"""
    loss: Literal["full", "chunked", "liger"] = "full"
    """full: transformers' own over float32 logits; chunked: loss_chunk_tokens tokens at once; liger: liger-kernel's"""
    loss_chunk_tokens: int = 256
    """most tokens whose logits exist at once in the chunked loss"""
    hold_outputs: bool = field(default=False, metadata={"value_into": "hold_until"})
    """keep the model's output object (and so its logits) alive through backward, as a careless loop does; with `step`,
    through the optimizer step too"""
    hold_until: Literal["backward", "step"] = field(default="backward", metadata={"came_later": True})
    """when held outputs go; `--hold-outputs step` says both"""
    empty_cache_every: int | None = None
    """release cached blocks every so many optimizer steps; never when none"""
    max_steps: int | None = None
    """stop after this many optimizer steps; all when none"""

    @property
    def has_reference(self) -> bool:
        """Whether the objective compares with the model as it was before."""
        return self.objective in ("dpo", "ipo") or (self.objective == "grpo" and bool(self.beta))

    @property
    def compares_answers(self) -> bool:
        """Whether the objective prefers one answer to another."""
        return self.objective not in ("sft", "grpo")

    @property
    def completions_per_sample(self) -> int:
        """How many sequences a step learns of each sample where the model generates them, else 1."""
        return self.num_generations if self.objective == "grpo" else 1

    @property
    def sequences_per_sample(self) -> int:
        """2 where answers are compared, else 1."""
        return 2 if self.compares_answers else 1


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation, checkpoints, and how much is generated."""

    do_eval: bool = field(default=True, metadata={"came_later": True})
    """evaluate, during training and after it"""
    eval_every: int | None = None
    """evaluate every so many optimizer steps; at the end of each epoch when none"""
    eval_batch_size: int = 8
    """sequences in one evaluation batch"""
    eval_keep_logits: bool = field(default=False, metadata={"came_later": True})
    """keep the logits of all batches on the device to the end of an evaluation, as a Trainer with metrics does"""
    eval_accumulation_steps: int | None = field(default=None, metadata={"came_later": True})
    """let go of logits that were kept, and of cached blocks, every so many evaluation batches; never when none"""
    eval_generate: int = field(default=0, metadata={"came_later": True})
    """held-out prompts answered after the loss of each evaluation, eval_batch_size at once and max_new_tokens long, as
    predict_with_generate does for a metric; what is said is not kept"""
    empty_cache_before_eval: bool = False
    """release cached blocks before each evaluation"""
    save_every: int | None = None
    """write a checkpoint every so many optimizer steps; at the end of each epoch when none"""
    keep_checkpoints: int = 2
    """newest checkpoints kept in the output folder"""
    generate_prompts: int = 4
    """held-out prompts answered after training; 0 answers none of them"""
    generate_batch_size: int = 1
    """prompts answered at once"""
    max_new_tokens: int = 128
    """longest reply in tokens"""
    compare_base: bool = True
    """after training, evaluate and generate with the adapter switched off too"""


@dataclass(frozen=True)
class GenerationConfig:
    """How replies are drawn, and to what."""

    prompts: str | None = field(default=None, metadata={"metavar": "CSV"})
    """CSV with a column question, all of which are answered; held-out questions when not set"""
    ask: str | None = field(default=None, metadata={"metavar": "QUESTION", "came_later": True})
    """one question that is answered, in place of a CSV of them"""
    replies_per_prompt: int = 1
    """replies to each prompt"""
    temperature: float = 0.0
    """0 takes the likeliest token; above it tokens are drawn, the higher the more freely"""
    top_p: float = 1.0
    """draw from the likeliest tokens whose shares add up to this"""
    repetition_penalty: float = 1.0
    """divide the score of a token that has occurred by this; 1 does nothing"""
    generate_seed: int | None = None
    """seed of the drawing; that of the corpus when not set"""
    crisis: str | None = field(default=None, metadata={"metavar": "FILE"})
    """TOML with the vetted reply to questions of self-harm; configs/crisis.toml when not set"""


@dataclass(frozen=True)
class DeviceConfig:
    """Where it runs, and on which card it has to fit."""

    device: Literal["auto", "cuda", "simulated"] = "auto"
    """cuda measures, simulated predicts; auto measures when there is a CUDA GPU"""
    gpu: str = field(default="t4", metadata={"metavar": "NAME"})
    """card to fit, a name in gpus.toml or in the --gpu-file"""
    gpu_file: str | None = field(default=None, metadata={"metavar": "FILE", "came_later": True})
    """TOML file with cards of your own, written as in gpus.toml; --gpu may be left out where it holds one"""
    context_bytes: int | None = field(default=None, metadata={"flag": "--context", "unit": "bytes", "came_later": True})
    """taken outside the allocator by driver and libraries, such as "1 GiB" by an old driver; the card's when not set"""
    budget_bytes: int | None = field(default=None, metadata={"flag": "--budget", "unit": "bytes"})
    """memory for the allocator, such as "14.4 GiB"; the card's capacity less its CUDA context when not set"""
    tensors: Literal["fake", "real"] = "fake"
    """simulated device only: fake computes nothing and takes any size, real computes on the CPU (tiny models)"""
    expandable_segments: bool = False
    """let the allocator grow segments page by page (PYTORCH_ALLOC_CONF=expandable_segments:True)"""
    num_gpus: int = 1
    """GPUs that train together, each on its share of every step; a probe shows what one of them takes"""
    sharding: Literal["auto", "none", "ddp", "fsdp", "split", "all"] = field(
        default="auto", metadata={"came_later": True}
    )
    """what several GPUs share: ddp, nothing, each has the whole model; fsdp, every layer, which is gathered when it is
    computed; split, each has some of the layers, as device_map="auto" does; auto is ddp, and none for a single GPU; all
    simulates what a GPU takes with each of them, and says which to take"""

    @property
    def engine(self) -> str:
        """Return what several GPUs train by: `none`, `ddp`, `fsdp` or `split`; `all` where they are to be compared."""
        if self.sharding != "auto":
            return self.sharding
        return "ddp" if self.num_gpus > 1 else "none"

    @property
    def data_parallel_size(self) -> int:
        """Return over how many GPUs the sequences of a step are shared out; layers that are split see all of them."""
        return 1 if self.engine == "split" else self.num_gpus


@dataclass(frozen=True)
class OutputConfig:
    """Where results go."""

    output: str = field(default="runs", metadata={"metavar": "DIR"})
    """folder for logs, checkpoints and generated replies; created when missing"""
    push_to_hub: str | None = field(default=None, metadata={"metavar": "USER/NAME"})
    """repository on the Hugging Face Hub that gets the adapter; made private when missing; needs a token"""


@dataclass(frozen=True)
class RunConfig:
    """One run. `Fix.apply` maps a `RunConfig` to a `RunConfig`; `fingerprint` identifies it."""

    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    generation: GenerationConfig = GenerationConfig()
    device: DeviceConfig = DeviceConfig()
    output: OutputConfig = OutputConfig()

    def with_fields(self, **changes: Any) -> RunConfig:
        """Return a copy with the named fields changed, whatever their section. Raises KeyError: no such field."""
        section_of = section_by_field()
        by_section: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            by_section.setdefault(section_of[name], {})[name] = value
        sections = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in by_section.items()}
        return dataclasses.replace(self, **sections)

    @property
    def draws_in_mlp(self) -> bool:
        """Return whether feed-forward blocks have adapters with dropout."""
        return self.lora.lora_dropout > 0 and not {*MLP_LAYERS, ALL_LINEAR}.isdisjoint(self.lora.target_modules)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain nested dicts, section -> field -> value, ready for JSON."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """Return 12 hex digits that change whenever a field that affects the run changes (`output` does not).

        A field that came later counts once it is set: runs of before keep their digits.
        """
        content = self.to_dict()
        del content["output"]
        for section, item in fields_of_sections():
            if item.metadata.get("came_later") and content[section][item.name] == item.default:
                del content[section][item.name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


SECTIONS: dict[str, type] = typing.get_type_hints(RunConfig)


def fields_of_sections() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Yield each setting's section and field, in the order in which they are written."""
    for section, cls in SECTIONS.items():
        for item in dataclasses.fields(cls):
            yield section, item


def section_by_field() -> dict[str, str]:
    """Return the section of each setting."""
    return {item.name: section for section, item in fields_of_sections()}


def config_from_dict(sections: dict[str, dict[str, Any]]) -> RunConfig:
    """Rebuild what `RunConfig.to_dict` wrote; missing fields take their default.

    Raises:
        TypeError: a section, a field or the type of a value is not known.
    """
    built: dict[str, Any] = {}
    for name, values in sections.items():
        if name not in SECTIONS or not isinstance(values, dict):
            raise TypeError(f"no configuration section: {name}")
        unknown = set(values) - {field.name for field in dataclasses.fields(SECTIONS[name])}
        if unknown:
            raise TypeError(f"unknown configuration fields in section {name}: {', '.join(sorted(unknown))}")
        try:
            built[name] = msgspec.convert(values, SECTIONS[name])
        except msgspec.ValidationError as error:
            raise TypeError(f"section {name}: {error}") from None
    return RunConfig(**built)
