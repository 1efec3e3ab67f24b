"""QLoRA: a 4-bit base, float32 adapters, mixed precision, gradient checkpointing, an optimizer of the adapter."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import peft
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from bitsandbytes.nn.parametrize import Bnb4bitParametrization
from torch.distributed.fsdp import FSDPModule
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from memory_harness.configs.cards import budget_of
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.schema import Recomputed, RunConfig
from memory_harness.configs.step_graphs import forbids_graph, takes_graphs
from memory_harness.harness.data.batching import Batch, left_padded
from memory_harness.harness.devices.base import Device
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.devices.programs import run_program
from memory_harness.harness.log.records import ForwardFacts, ModelFacts
from memory_harness.harness.observe.facts import forward_facts, model_facts
from memory_harness.harness.strategies import state
from memory_harness.harness.strategies.adapter import export_adapter, export_model, import_adapter, import_model
from memory_harness.harness.strategies.architecture import (
    adapter_targets,
    attention_windows,
    cache_name,
    check_names,
    check_positions,
    class_labels,
    classification_head,
    decoder_layers,
    divides_loss,
    takes,
    transformers_config,
)
from memory_harness.harness.strategies.kept_logits import KeptLogits
from memory_harness.harness.strategies.modeling import Layout, checkpoint_layout, make_real, model_without_weights
from memory_harness.harness.strategies.optimizers import make_optimizer, state_tensors
from memory_harness.harness.strategies.sampling import GREEDY, Sampler, Sampling
from memory_harness.harness.strategies.shards import (
    forget_pass,
    gather,
    pretend_sharded_gradients,
    release_gathered,
    shard,
    sharded_tensors,
    share_tables,
    whole_on_host,
    without_shards,
)
from memory_harness.harness.strategies.split import Places, join_layers, place_of, places_of
from memory_harness.harness.strategies.training_extras import add_embedding_noise, smoothed_loss
from memory_harness.harness.strategies.transformers_loader import load_by_transformers
from memory_harness.harness.strategies.weights import find_checkpoint
from memory_harness.harness.techniques.activation_offload import offload_activations
from memory_harness.harness.techniques.chunked_loss import chunked_causal_lm_loss, loss_chunks
from memory_harness.harness.techniques.chunks import num_chunks
from memory_harness.harness.techniques.expanded_heads import expand_heads
from memory_harness.harness.techniques.fused_products import (
    Gate,
    PlainGate,
    fuse_feed_forward,
    fuse_products,
    fuse_projections,
)
from memory_harness.harness.techniques.group_policy import policy_loss, tiled_log_probs, whole_log_probs
from memory_harness.harness.techniques.host_embeddings import HostEmbedding, num_host_weights
from memory_harness.harness.techniques.liger_kernels import LigerGate, use_liger_kernels
from memory_harness.harness.techniques.liger_loss import liger_causal_lm_loss
from memory_harness.harness.techniques.packing import (
    check_keeps_apart,
    kernel_keeps_apart,
    masks_keep_apart,
    shared_mask_dtype,
    takes_kernel,
)
from memory_harness.harness.techniques.preference_loss import BETAS, log_probabilities, preference_loss
from memory_harness.harness.techniques.step_graphs import GraphBook, Stage, StepGraphs
from memory_harness.harness.techniques.tiled_mlp import tile_mlp
from memory_harness.harness.techniques.unmasked import leave_out_masks

PEFT_PREFIX = "base_model.model."
"""before the names of a model's parts once it has an adapter"""


class _State(NamedTuple):
    """The keys or the values of a layer, but for batch size and length."""

    num_heads: int
    head_dim: int
    dtype: torch.dtype

    def empty(self, batch_size: int, length: int, device: Device) -> torch.Tensor:
        """Return a tensor (B, heads, L, D) without values."""
        shape = (batch_size, self.num_heads, length, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=device.torch_device)


class QLoraStrategy:
    """Holds the model, the optimizer and the loss scaler of one run."""

    def __init__(self, config: RunConfig, device: Device) -> None:
        self.config = config
        self.device = device
        self.dtype: torch.dtype = getattr(torch, config.model.dtype)
        self.model: Any = None
        self.planned: ModelFacts | None = None
        """what is known of the model before its weights are loaded, for a run that has no room for them"""
        self.optimizer: Any = None
        self.scaler: Any = None
        self.inputs: dict[str, Any] = {}
        """tensors, and the longest sample of a packed batch"""
        self.loss: torch.Tensor | None = None
        """sum of the step's micro-batches so far, without graph"""
        self.forward_facts: ForwardFacts | None = None
        self.cache: Any = None
        self.sampler: Sampler | None = None
        self._cache_name = "past_key_values"
        self._last_logits: dict[str, int] = {}
        self._states: list[_State] = []
        """keys and values of the layers of the cache, in turn; empty where it holds more"""
        self._divides_loss = True
        self._num_targets = 0
        """target tokens of the batch that was put"""
        self._real_tokens: int | None = None
        """tokens of the batch that was put, without padding; None where nobody has counted them"""
        self.kept = KeptLogits(config, device)
        self.head: Any = None
        """the layer that classifies sequences; None where the model predicts tokens"""
        self._graphs: StepGraphs | None = None
        self._captured_facts: ForwardFacts | None = None
        self._num_items = 1.0
        """by which the loss of the micro-batch that runs is divided"""
        self._layers: Any = ()
        self._trainable: list[torch.nn.Parameter] | None = None
        self._checkpointed: list[Any] = []
        self.graph: Any = None
        self._held: Any = None
        self._places: Places = {}
        """of the parts of a model that is split"""
        self.packs_by_kernel = False
        self._rolls_out = False
        """whether what is generated is to be learned from"""
        self._pad_id = self._vocab_size = 0
        self._loaded: list[tuple[torch.nn.Module, str, torch.Tensor]] = []
        """each module's tensors as loading left them, without values or memory"""
        self.linear_shapes: tuple[tuple[int, int], ...] = ()
        """the (out_features, in_features) that occur among the 4-bit layers"""
        self.windows: tuple[int, ...] = ()

    def load(self) -> ModelFacts:
        """Build the quantised model, prepare it, add the adapter and make the optimizer."""
        shape = find_model(self.config.model.model)
        if shape.classifies and self.device.computes:
            raise ConfigError(
                f"--model {shape.name}: classifies sequences, for which the corpus has no labels: its memory can be "
                "simulated (--device simulated), but it is not trained"
            )
        checkpoint = self.checkpoint_of(shape)
        config = transformers_config(shape)
        config.use_cache = self.config.model.use_cache
        layout = self._layout(config)
        with self.device.on_host():
            self.model = model_without_weights(config, layout, self.config.model.attention_implementation)
        check_positions(self.model, shape.name, self.config.data.max_length)
        if self.config.data.batching == "packed":
            check_keeps_apart(self.model, shape.name)
        self.planned = replace(model_facts(self.model), name=shape.name)
        self.head = classification_head(self.model)
        if self._shares_layers:
            return self._load_shards(shape, layout, checkpoint)
        if self.config.device.engine == "split":
            room = [budget_of(self.config.device)] * self.config.device.num_gpus
            self._places = places_of(self.model, layout, room)
        loader = self.config.model.loader
        if loader != "stepwise":
            self.model = None  # one that loads its own weights takes its place
            attention, over_host = self.config.model.attention_implementation, loader == "host"
            self.model = load_by_transformers(config, self.device, layout, checkpoint, attention, over_host=over_host)
        else:
            embed = self._embed_on_host if self.config.model.embeddings_on_host else None
            make_real(self.model, self.device, layout, checkpoint, embed, near=self._near)
        if self.config.model.expand_kv:
            expand_heads(self.model)
        if self.config.model.tiled_mlp:
            tile_mlp(self.model, self.mlp_chunks, self._autocast)
        if self._places:
            with self.device.assuming(0.0):  # which weights there are is asked by way of their constants
                join_layers(self.model, self._places)
        self.device.empty_cache()
        self._prepare()
        if self._trains_all:
            self.model.train()
        else:
            self._add_adapter()
        if self.config.model.fast_path != "off":
            self._take_fast_path()
        if self.config.model.offload_activations:
            alone = decoder_layers(self._base) if self.config.model.recomputes_blocks else ()
            offload_activations(self.model, self.device, alone)
        return self.adopt(self.model, shape, checkpoint)

    def _near(self, name: str) -> AbstractContextManager[Any]:
        """Within, what is made lies on the GPU of that part of the model."""
        return self.device.on_card(place_of(self._places, name))

    @property
    def _shares_layers(self) -> bool:
        return self.config.device.engine == "fsdp"

    def _load_shards(self, shape: ModelShape, layout: Layout, checkpoint: Path | None) -> ModelFacts:
        """Make each layer whole, its adapter too, and share it out before the next: no GPU ever holds two."""
        with self.device.on_host():
            self._prepare()
            if self._trains_all:
                self.model.train()
            else:
                self._add_adapter(empty=True)
            facts = model_facts(self.model)
        layers = set(decoder_layers(self._base))

        def share(module: torch.nn.Module) -> None:
            shard(module, self.device.mesh, self.device.group)

        def share_out(part: torch.nn.Module) -> None:
            if part in layers:
                self._materialise_adapters(part)
            if self._trains_all:
                part.requires_grad_(True)
            if part in layers:
                share(part)
            else:
                share_tables(self._base, share)
                share(self.model)

        make_real(self._base, self.device, layout, checkpoint, finish=share_out)
        self.device.empty_cache()
        return replace(self.adopt(self.model, shape, checkpoint), **_counted(facts))

    @property
    def _trains_all(self) -> bool:
        return self.config.train.finetuning_type == "full"

    @property
    def _base(self) -> Any:
        """The model without what peft puts around it."""
        return self.model if self._trains_all else self.model.get_base_model()

    def _layout(self, config: Any) -> Layout:
        """Return how weights are held: as configured, or as the checkpoint holds them where it is quantised."""
        model = self.config.model
        dtype = self.dtype if model.weights_dtype == "auto" else getattr(torch, model.weights_dtype)
        given = checkpoint_layout(config, dtype)
        if given is None:
            layout = Layout(dtype, model.quantization, model.double_quant, model.quantise_experts)
            layout = replace(layout, compute_dtype=self.dtype, threshold=model.llm_int8_threshold)
            return replace(layout, storage=self.dtype) if self._shares_layers else layout
        if model.quantization == "none":
            raise ConfigError(f"--quantization none: the weights of {model.model} are quantised already, in 4 bits")
        return replace(given, experts=model.quantise_experts, compute_dtype=self.dtype)

    def adopt(self, model: Any, shape: ModelShape, checkpoint: Path | None) -> ModelFacts:
        """Train a model of this shape that has its adapter, its weights from the checkpoint: make the optimizer."""
        self.model, self._trainable = model, None
        self._pad_id, self._vocab_size = shape.pad_token_id, shape.vocab_size
        base = self._base
        self._layers = decoder_layers(base)
        self._checkpointed = [it for it in model.modules() if getattr(it, "gradient_checkpointing", False)]
        add_embedding_noise(model, self.config.train.neftune_noise_alpha)
        self._cache_name = cache_name(base)
        self._divides_loss = divides_loss(base) and self.head is None
        self._last_logits = dict.fromkeys(takes(base, "logits_to_keep"), 1)
        self.packs_by_kernel = takes_kernel(base, self.config.model, self.device)
        self.make_optimizer()
        self.linear_shapes = _linear_shapes(model)
        self.windows = attention_windows(base)
        with self.device.on_host():
            self._loaded = _shapes_of_tensors(model)
        if takes_graphs(self.config):
            book = GraphBook(lambda tokens: forbids_graph(self.config, self.recomputed(tokens)))
            self._graphs = StepGraphs(self.device, book, self.trainable(), self.dtype)
        facts = model_facts(model)
        return replace(
            facts,
            name=shape.name,
            num_parameters=facts.num_parameters + num_host_weights(model),
            weights=self._origin_of_weights(checkpoint),
        )

    def _origin_of_weights(self, checkpoint: Path | None) -> str:
        if not self.device.computes:
            return "none"
        return "random" if checkpoint is None else "checkpoint"

    def checkpoint_of(self, shape: ModelShape) -> Path | None:
        """Return the folder of the model's weights; None where there is none, or where no values are wanted."""
        if not self.device.computes or self.config.model.random_weights:
            return None
        return find_checkpoint(shape)

    def _embed_on_host(self, weight_VH: torch.Tensor) -> HostEmbedding:
        # as an upcast table would give them
        dtype = torch.float32 if self.config.model.casts_to_float32 else self.dtype
        return HostEmbedding(weight_VH, self.device, dtype)

    def mlp_chunks(self, training: bool, tokens: int) -> int:
        """Return into how many chunks feed-forward blocks cut a batch of so many tokens."""
        at_once = self.config.model.mlp_chunk_tokens
        if not self.config.model.tiled_mlp or tokens <= at_once:
            return 1
        full = self.config.train.train_batch_size if training else self.config.eval.eval_batch_size
        return num_chunks(self.config, full, at_once)

    def recomputed(self, tokens: int) -> Recomputed:
        """Return what computes its activations again in a training batch of so many tokens."""
        return self.config.model.recomputed(len(self._layers), tokens)

    def _prepare(self) -> None:
        checkpointing = self.config.model.gradient_checkpointing
        options_of_checkpointing = {"use_reentrant": self.config.model.use_reentrant}
        if self.config.model.casts_to_float32:
            # the device empties its own cache below, so that a simulated run does it too
            options = {"auto_clear_cache": False} if _peft_clears_cache() else {}
            peft.prepare_model_for_kbit_training(
                self.model,
                use_gradient_checkpointing=checkpointing,
                gradient_checkpointing_kwargs=options_of_checkpointing,
                **options,
            )
            self.device.empty_cache()
            return
        for parameter in self.model.parameters():
            parameter.requires_grad = self._trains_all
        if checkpointing and self.config.model.use_reentrant:
            self.model.enable_input_require_grads()  # else a checkpointed layer, whose inputs want none, gets none
        if checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options_of_checkpointing)

    def _add_adapter(self, *, empty: bool = False) -> None:
        """Put adapters beside layers; where they are to be empty, without memory."""
        lora = self.config.lora
        options = peft.LoraConfig(
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=adapter_targets(self.model, lora.target_modules),
            task_type="CAUSAL_LM" if self.head is None else None,
            bias=lora.lora_bias,
            use_rslora=lora.use_rslora,
            use_dora=lora.use_dora,
            init_lora_weights=self._initial_adapter,
            rank_pattern=lora.ranks,
            alpha_pattern=lora.alphas,
            modules_to_save=list(lora.modules_to_save) or None,
        )
        check_names(self.model, lora)
        wide = lora.adapter_dtype == "float32"
        if lora.use_dora or lora.decomposes_weights or lora.modules_to_save:  # which read the weights, or copy them
            self.model = run_program(self.device, lambda _: _with_adapter(self.model, options, wide=wide, empty=False))
        else:
            with self.device.on_host():  # on the meta device, made real below: the same way on every device
                self.model = _with_adapter(self.model, options, wide=wide, empty=True)
            if not empty:
                self._materialise_adapters(self.model)
        if self.head is not None:  # trained in full, as peft does for SEQ_CLS; in float32, as all that is trained
            self.head.float().requires_grad_(True)
        self.model.train()

    def _materialise_adapters(self, part: torch.nn.Module) -> None:
        for name, module in part.named_modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                with self._near(name.removeprefix(PEFT_PREFIX)):
                    _materialise_adapter(module, self.device, self._initial_adapter)

    @property
    def _initial_adapter(self) -> bool | str:
        """What peft's `init_lora_weights` is to be."""
        wanted = self.config.lora.init_lora_weights
        return True if wanted == "default" else wanted

    def _take_fast_path(self) -> None:
        base = self._base
        if not self.config.model.use_reentrant:
            base.disable_input_require_grads()  # reentrant checkpointing alone needs a leaf, which lives to the end
        gate: Gate = PlainGate()
        if self.config.model.fast_path == "liger":
            gate = LigerGate(self.device)
            use_liger_kernels(base, self.device)
        leave_out_masks(base)
        buffer = fuse_products(base, self.dtype, self.device)
        fuse_projections(base, buffer)
        if not self.config.model.tiled_mlp:
            fuse_feed_forward(base, buffer, gate)

    def make_optimizer(self) -> None:
        """Make the optimizer, and the loss scaler where the dtype needs one."""
        self.optimizer = make_optimizer(self.config, self.model)
        self.scaler = self._new_scaler({})
        # makes the scale now: otherwise the first backward pass would allocate what no other does
        self.scaler.scale(torch.zeros((), device=self.device.torch_device))

    def _new_scaler(self, scaler_state: dict[str, Any]) -> Any:
        is_mixed = self.dtype is torch.float16 and self.config.model.autocast != "none"
        scaler = torch.amp.GradScaler(self.device.torch_device.type, enabled=is_mixed)
        if scaler_state:
            scaler.load_state_dict(scaler_state)
        return scaler

    def staged(self, batch: Batch, *, training: bool) -> tuple[Batch, Stage]:
        """Return a batch as it is to run, and how: captured, replayed or as it is."""
        if not training or self._graphs is None:
            return batch, Stage.ALONE
        return self._graphs.book.take(batch)

    def forget_graphs(self) -> bool:
        """Drop the graphs of micro-batches; return whether their pool may hold memory."""
        return self._graphs is not None and self._graphs.forget()

    def release_graph_pool(self) -> None:
        """Return the memory of graphs that are dropped."""
        self.device.release_graph_pool()

    def _leave_training(self) -> None:
        """Make room for what does not run in the graphs' pool."""
        if self.forget_graphs():
            self.release_graph_pool()

    def put(self, batch: Batch, *, training: bool) -> None:
        """Copy ids and labels to the device, and the mask where the batch has padding; each int64 (B, L)."""
        if not training:
            self._leave_training()
        self.put_staged(*self.staged(batch, training=training), training=training)

    def put_staged(self, batch: Batch, stage: Stage, *, training: bool) -> None:
        """Copy a batch to the device, to run as `staged` has said."""
        arrays: dict[str, Any] = dict(batch.arrays(self._pad_id, self._vocab_size))
        if stage is not Stage.ALONE or not batch.has_padding:
            # without padding the mask says nothing, and transformers would read it back to find that out
            arrays.pop("attention_mask", None)
        elif self.config.model.attention == "flash":
            raise ConfigError(
                "--attention flash: PyTorch's kernel takes no batch with padding (allowed with it: auto, "
                "flash_attention_2, which cuts the padding out)"
            )
        if batch.is_packed:
            arrays |= self._places_of_samples(batch)
        if self.head is not None:
            arrays["labels"] = class_labels(self.model.config, batch.shape.batch_size)
        if training and self._chooses_what_recomputes:
            self._recompute(*self.recomputed(batch.shape.padded_tokens))
        self._real_tokens = batch.num_real_tokens
        if training and self._graphs is not None:
            self.inputs = self._graphs.put(arrays, (batch.shape.batch_size, batch.shape.padded_length), stage)
        else:
            self.inputs = {name: self._put_value(value) for name, value in arrays.items()}
        self._num_targets = batch.shape.target_tokens

    def _put_value(self, value: Any) -> Any:
        return value if isinstance(value, int) else self.device.put(value)

    def _places_of_samples(self, batch: Batch) -> dict[str, Any]:
        """Return where a packed batch's samples begin, and how long the longest is, where a kernel asks for it.

        Raises:
            ConfigError: the only kernel allowed cannot take them, nor a mask.
        """
        if self.packs_by_kernel:
            return {"cu_seq_lens_q": batch.starts, "max_length_q": max(batch.parts)}
        if self.config.model.attention == "flash":
            raise ConfigError("--attention flash: takes no mask, which --batching packed needs here (allowed: auto)")
        return {}

    @property
    def _chooses_what_recomputes(self) -> bool:
        return self.config.model.recompute != "all" or self.config.model.fast_path != "off"

    def _recompute(self, layers: int, blocks: int) -> None:
        chosen = self._spread(len(self._layers) - layers, blocks)
        for index, layer in enumerate(self._layers):
            layer.gradient_checkpointing = index < layers
            if self.config.model.recomputes_blocks:  # of a layer that does as a whole it would be done twice
                layer.mlp.computes_again = index - layers in chosen

    def _spread(self, layers: int, blocks: int) -> Collection[int]:
        """Return which of so many layers recompute their block alone.

        The first, as the backward pass gets to them when the others are gone; where their activations are copied to the
        host, others lie between, and give the copies time.
        """
        if not self.config.model.offload_activations:
            return range(blocks)
        return {number * layers // blocks for number in range(blocks)}

    def forward(self, num_target_tokens: float) -> None:
        """Compute the loss over the batch that was put."""
        if self._graphs is not None:
            self._forward_of_graphs(self._graphs, num_target_tokens)
            return
        with self.model_context():
            self.graph, output = self._causal_lm_loss(num_target_tokens, self.config.train.train_batch_size)
        # the output holds the logits; a recipe that keeps it pays for them throughout the backward pass
        self._held = self._hold(output)
        loss = self.graph.detach()
        if self.loss is None:
            self.loss = loss.clone()
        else:
            self.loss = self.loss + loss

    def _forward_of_graphs(self, graphs: StepGraphs, num_items: float) -> None:
        """Compute the same by what can be captured: the batch's sum, which depends on no other batch of the step."""
        if self.loss is None:
            self.loss = torch.zeros((), device=self.device.torch_device)
        self._num_items = num_items
        inputs = self.inputs

        def run() -> None:
            self.inputs = inputs
            with self.model_context():
                self.graph, _ = self._causal_lm_loss(1, self.config.train.train_batch_size)
                graphs.buffers["loss"].copy_(self.graph.detach())

        graphs.forward(run)
        if graphs.stage is Stage.CAPTURE:
            self._captured_facts = self.forward_facts
        elif graphs.stage is Stage.REPLAY:
            self.forward_facts = self._captured_facts
        self.loss.add_(graphs.buffers["loss"], alpha=1 / num_items)

    def _backward_of_graphs(self, graphs: StepGraphs) -> None:
        """Do the same from a gradient that says what the sum is divided by and the scaler multiplies by."""
        grad_of_loss = graphs.buffers["grad_of_loss"].fill_(1 / self._num_items)
        grad_of_loss.copy_(self.scaler.scale(grad_of_loss))

        def run() -> None:
            self.graph.backward(grad_of_loss)
            self.graph = None

        graphs.backward(run)

    @property
    def _holds_to_step(self) -> bool:
        return self.config.train.hold_outputs and self.config.train.hold_until == "step"

    def _hold(self, output: Any) -> Any:
        """Return what of an output is kept; to the end of the step, what a caller can still see of it."""
        if output is None or not self._holds_to_step:
            return output if self.config.train.hold_outputs else None
        return {name: output[name].detach() for name in self._held_names}

    @property
    def _held_names(self) -> tuple[str, ...]:
        return ("loss", "logits") if self.config.train.objective == "sft" else ("logits",)

    @contextmanager
    def model_context(self) -> Iterator[None]:
        """Mixed precision; transformers reads back whether all tokens are real, which the batch knows."""
        is_masked = "position_ids" in self.inputs and not self.packs_by_kernel
        all_real = 0.0 if "attention_mask" in self.inputs or is_masked else 1.0
        apart = self._masks_for_packed() if is_masked else self._kernel_for_packed()
        with self._autocast(), self.device.assuming(all_real, self._real_tokens), apart:
            yield

    def _masks_for_packed(self) -> AbstractContextManager[None]:
        """Within, masks keep the samples of the batch that was put apart."""
        settings = self.config.model
        return masks_keep_apart(self._base, settings.model, shared_mask_dtype(self._base, settings))

    def _kernel_for_packed(self) -> AbstractContextManager[None]:
        """Within, a kernel keeps the samples of the batch that was put apart, where it goes by their beginnings."""
        return kernel_keeps_apart(self._base) if "cu_seq_lens_q" in self.inputs else nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        # accelerate wraps the outermost module's forward, which peft's `generate` passes by
        is_passed_by = self._rolls_out and not self._trains_all
        if is_passed_by or self.config.model.autocast == "none":
            return nullcontext()
        return self.device.autocast(self.dtype)

    def _causal_lm_loss(self, num_items: float, batch_size: int) -> tuple[torch.Tensor, Any]:
        """Return the loss over the batch that was put, and the model's output, which only the full loss has."""
        model, output = self._base, None
        if self.config.train.objective == "grpo":
            output, loss = self._policy_loss(num_items)
        elif self.config.train.loss == "chunked":
            chunks = loss_chunks(self.config, batch_size)
            loss = chunked_causal_lm_loss(model, self.inputs, num_items, chunks, self.dtype)
        elif self.config.train.loss == "liger":
            loss = liger_causal_lm_loss(model, self.inputs, num_items, self.dtype, self.device)
        elif self.config.train.objective != "sft":
            output, loss = self._preference_loss(num_items)
        else:
            output, loss = self._full_loss(num_items)
        cache = getattr(output, self._cache_name, None)
        self.forward_facts = forward_facts(self.model, [loss], cache, self._layers)
        return loss, output

    def _preference_loss(self, num_pairs: float) -> tuple[Any, torch.Tensor]:
        """Return the model's output, and how far it is from preferring the chosen answers, summed over `num_pairs`."""
        train, inputs = self.config.train, dict(self.inputs)
        labels, reference = inputs.pop("labels"), None
        output = self.model(**inputs)
        tokens = log_probabilities(output.logits, labels)
        if train.has_reference:
            with torch.no_grad(), self.without_adapter():
                reference = log_probabilities(self.model(**inputs).logits, labels)
        beta = BETAS[train.objective] if train.beta is None else train.beta
        loss = preference_loss(train.objective, tokens, labels, reference, beta, train.simpo_gamma)
        return output, loss / num_pairs

    def score(self, batches: Sequence[Batch]) -> None:
        """Compute the log-probabilities that GRPO's update compares with: of the policy, then of the reference."""
        with torch.no_grad():
            if self.config.train.num_iterations > 1:
                self._score_each(batches)
            if self.config.train.has_reference:
                with self.without_adapter():
                    self._score_each(batches)
        self.inputs = {}
        self._end_pass()

    def _score_each(self, batches: Sequence[Batch]) -> None:
        found = None
        for batch in batches:
            self.put(batch, training=True)
            with self.model_context():
                # whole logits stay until those of the next batch are there, as in TRL's loop
                found = self._completion_log_probs(with_entropy=False)
        del found

    def _policy_loss(self, num_tokens: float) -> tuple[Any, torch.Tensor]:
        """Return the model's output, where it has logits, and GRPO's loss of the completions over `num_tokens`."""
        train = self.config.train
        output, tokens = self._completion_log_probs(with_entropy=True)
        # what `score` computed takes 4 bytes a token; the values say nothing, as rewards are not known
        old = torch.zeros_like(tokens) if train.num_iterations > 1 else None
        reference = torch.zeros_like(tokens) if train.has_reference else None
        return output, policy_loss(tokens, old, reference, train.beta or 0.0) / num_tokens

    def _completion_log_probs(self, *, with_entropy: bool) -> tuple[Any, torch.Tensor]:
        """Return the model's output, where it has logits, and the log-probabilities of the completions (B, C)."""
        inputs, num_tokens = dict(self.inputs), self.config.train.max_completion_length
        inputs.pop("labels")
        if self.config.train.loss == "chunked":
            return None, tiled_log_probs(self._base, inputs, num_tokens, self.dtype, self.device)
        output = self.model(**inputs, **dict.fromkeys(self._last_logits, num_tokens + 1), use_cache=False)
        if self.config.model.autocast != "none":
            output.logits = output.logits.float()  # as accelerate does with all outputs
        logits = output.logits[:, :-1][:, -num_tokens:]
        return output, whole_log_probs(logits, inputs["input_ids"][:, -num_tokens:], with_entropy=with_entropy)

    def _full_loss(self, num_items: float) -> tuple[Any, torch.Tensor]:
        """Return the model's output and its loss, summed and divided by `num_items`."""
        smoothing = self.config.train.label_smoothing_factor
        if smoothing:
            shifts = self.head is None
            return smoothed_loss(self.model, self.inputs, smoothing, num_items, self._num_targets, shifts=shifts)
        if self._divides_loss:
            output = self.model(**self.inputs, num_items_in_batch=num_items)
            return output, output.loss
        output = self.model(**self.inputs)
        return output, output.loss * (self._num_targets / num_items)

    def backward(self) -> None:
        """Scale the loss and add its gradients."""
        # checkpointing computes the forward pass again
        with self.device.assuming(0.0, self._real_tokens), self._kernel_for_packed():
            if self._graphs is not None:
                self._backward_of_graphs(self._graphs)
            else:
                self.scaler.scale(self.graph).backward()
        self.graph = None
        if self.config.train.hold_until == "backward":
            self._held = None
        self.inputs = {}

    def summands(self) -> list[torch.Tensor]:
        """Return gradients and loss, made where no micro-batch of this step was this GPU's."""
        for parameter in self.trainable():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.loss is None:
            self.loss = torch.zeros((), device=self.device.torch_device)
            self.scaler.scale(self.loss)  # makes the scale, which a new scaler lacks until it has scaled something
        return [*without_shards(self._gradients()), self.loss]

    def optimizer_step(self, learning_rate: float) -> tuple[float | None, float | None]:
        """Unscale, clip, update unless a gradient overflowed, and free the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        gradients = self._gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self._clip(gradients)
        if gradients:  # a scaler refuses to step without; the norm says so
            with self.device.assuming(0.0):  # no overflow
                self.scaler.step(self.optimizer)
                self.scaler.update()
        gradients.clear()
        self._clear_gradients()
        self._held = None
        loss, self.loss = self.loss, None
        if loss is None:
            return None, self.device.read(norm)
        return self.device.read(loss), self.device.read(norm)

    def _clear_gradients(self) -> None:
        """Free them; graphs add to those that are there."""
        self.optimizer.zero_grad(set_to_none=self._graphs is None)

    def _gradients(self) -> list[torch.Tensor]:
        return [p.grad for p in self.trainable() if p.grad is not None]

    def _clip(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Return the gradients' norm before clipping; unclipped too, it shows whether anything trains."""
        max_norm = self.config.train.max_grad_norm
        norm = self._norm(gradients)
        if max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.trainable(), max_norm, norm, foreach=True)
        return norm

    def _norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        if not self._shares_layers:
            return torch.nn.utils.get_total_norm(gradients, foreach=True)
        squared = torch.nn.utils.get_total_norm(list(map(local_part, gradients)), foreach=True).square()
        group = self.device.group
        group.check_others()  # nothing is allocated from here on
        group.all_reduce([squared])
        return squared.sqrt_()

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the adapter's parameters, found once: looking through all modules takes as long as a short step."""
        if self._trainable is None:
            self._trainable = list(state.trainable_parameters(self.model).values())
        return self._trainable

    def evaluate(self) -> float | None:
        """Return the batch's summed loss; the logits die before the next batch."""
        self.model.eval()
        with torch.no_grad(), self.model_context():
            loss, output = self._causal_lm_loss(1, self.config.eval.eval_batch_size)
        self.model.train()
        self.inputs = {}
        self._end_pass()
        self.kept.take(output)
        return self.device.read(loss)

    def _end_pass(self) -> None:
        """Free what a pass without a backward pass has gathered."""
        if self._shares_layers:
            release_gathered(self.model)

    def end_batch(self) -> None:
        """Keep an evaluation batch's logits, where they are kept."""
        self.kept.keep()

    def end_evaluation(self) -> None:
        """Let go of the logits that were kept."""
        self.kept.drop()

    def prefill(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> list[int]:
        """Start the cache; only the last position's logits are computed: B·V, not B·T·V."""
        self._leave_training()
        self._begin_generation(rolls_out)
        self.sampler = Sampler(sampling, prompts, self._vocab_size, self.device)
        self.cache = DynamicCache(config=self.model.config)
        self._real_tokens = None
        self.inputs = {name: self.device.put(array) for name, array in left_padded(prompts, self._pad_id).items()}
        return self.decode()

    def _begin_generation(self, rolls_out: bool) -> None:
        """Take the model out of training; one that rolls out stays there, but for checkpointing, which has no cache."""
        self._rolls_out = rolls_out
        self.model.train(rolls_out)
        self._let_checkpoint(False)

    def _let_checkpoint(self, wanted: bool) -> None:
        for module in self._checkpointed:
            module.gradient_checkpointing = wanted

    def decode(self) -> list[int]:
        """Run the last tokens through the model and put the next ones in their place."""
        with torch.no_grad(), self.model_context():
            output = self._with_cache()
        self._states = _states_of(self.cache)
        assert self.sampler is not None, "prefill comes first"
        self.inputs["input_ids"] = self.sampler(output.logits[:, -1])
        if self._shares_layers:  # one more token on one GPU would be a pass that the others do not make
            self.device.group.take_from_first(self.inputs["input_ids"])
        if (mask := self.inputs.get("attention_mask")) is not None:
            self.inputs["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        tokens = []
        for token in self.inputs["input_ids"][:, 0]:
            value = self.device.read(token)
            tokens.append(self._pad_id if value is None else int(value))
        return tokens

    def _with_cache(self) -> Any:
        """Run the tokens that are put through the model, which adds to the cache."""
        return self.model(**self.inputs, **{self._cache_name: self.cache}, use_cache=True, **self._last_logits)

    def release(self) -> None:
        """Drop the cache and return to training."""
        self.cache = self.sampler = None
        self.inputs = {}
        self._end_pass()
        self._end_generation()

    def _end_generation(self) -> None:
        self._rolls_out = False
        self.model.train()
        self._let_checkpoint(True)

    def without_adapter(self) -> AbstractContextManager[None]:
        """Let peft pass the adapter by; nothing is copied or merged."""
        disabled: AbstractContextManager[None] = self.model.disable_adapter()
        return disabled

    def export(self, folder: Path, adapter: dict[str, torch.Tensor] | None = None) -> None:
        """Write the adapter for peft, or the model for transformers; see `harness.strategies.adapter`."""
        if adapter is None:
            adapter = self.adapter_on_host()
        if self._trains_all:
            export_model(folder, self.model, adapter, self.device)
        else:
            export_adapter(folder, self.model, adapter, self.config.model.model, self.device)

    def adapter_on_host(self) -> dict[str, torch.Tensor]:
        """Return what is trained, in host memory, whole."""
        if not self.device.computes:
            return {}
        with self.device.on_host():
            return whole_on_host(state.trainable_tensors(self.model), self.device.group)

    def load_adapter(self, folder: Path) -> None:
        """Load what `export` wrote."""
        if self._trains_all:
            import_model(folder, self.model, self.device)
        else:
            import_adapter(folder, self.model, self.device)

    def save(self, folder: Path) -> None:
        """Write adapter, optimizer and scaler; see `harness.strategies.state`."""
        self.write_state(folder, self.training_state())

    def training_state(self) -> dict[str, Any]:
        """Return adapter, optimizer and scaler; shards of them as one, in host memory."""
        if not self.device.computes:
            return {}
        found = state.training_state(self.model, self.optimizer, self.scaler)
        if not self._shares_layers:
            return found
        with self.device.on_host():
            return whole_on_host(found, self.device.group)

    def write_state(self, folder: Path, training_state: dict[str, Any]) -> None:
        """Write what `training_state` has returned; nothing where nothing is computed."""
        if self.device.computes:
            state.write(folder, training_state)

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        state.restore(folder, self.model, self.optimizer, self.scaler, self.device)

    def trainable_bytes(self) -> int:
        """Return what the adapter's parameters take in float32, as optimizers may keep their states of them."""
        return sum(local_part(p).numel() * max(4, p.element_size()) for p in self.trainable())

    def host_copy(self) -> dict[str, Any]:
        """Return adapter, optimizer and scaler as they are, in host memory."""
        return state.copy_to_host(self.model, self.optimizer, self.scaler, self.device)

    def undo_to(self, copied: dict[str, Any]) -> None:
        """Undo whatever has happened to them since `host_copy`."""
        state.undo_to(copied, self.model, self.optimizer, self.scaler)

    def abandon(self) -> None:
        """Drop everything of a step, an evaluation batch or a generation that did not end."""
        self.graph = self._held = self.loss = self.cache = self.sampler = None
        self.kept.drop()
        self.inputs = {}
        if self._shares_layers:
            forget_pass(self.model)
        self._leave_training()
        self._clear_gradients()
        # the old one may believe that gradients are unscaled; the new one allocates nothing before it is used
        self.scaler = self._new_scaler(self.scaler.state_dict())
        self._end_generation()

    def pretend_gradients(self, present: bool) -> None:
        """Have the gradients and the loss that a step would have here, or none, in training."""
        self._end_generation()  # a replayed one has not put the model back
        if present and self._shares_layers:
            pretend_sharded_gradients(self.model)
        for parameter in self.trainable():
            if present and parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            elif not present and self._graphs is None:
                parameter.grad = None
        if present and self.loss is None:
            self.loss = torch.empty(())
        elif not present:
            self.loss = None
        if self._holds_to_step:
            self._held = {name: torch.empty(()) for name in self._held_names} if present else None

    def pretend_loaded(self) -> None:
        """Undo what the first pass has changed for good: bitsandbytes casts biases, rotary embeddings make tables."""
        kept = {(module, name) for module, name, _ in self._loaded}
        for module in self.model.modules():
            made = [name for name, _ in _own_tensors(module) if (module, name) not in kept]
            for name in made:
                delattr(module, name)
        for module, name, loaded in self._loaded:
            now = getattr(module, name, None)
            if now is None or (now.shape, now.dtype) != (loaded.shape, loaded.dtype):
                _put_back(module, name, torch.empty_like(loaded, device=self.device.torch_device))

    def pretend_cache(
        self, batch_size: int, length: int, padded: bool, sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> None:
        """Replace the cache by an empty one of `length` tokens, as decoding would find it there."""
        self.sampler = Sampler(sampling, [()] * batch_size, self._vocab_size, self.device)
        self._begin_generation(rolls_out)
        if self._shares_layers:
            gather(self.model)
        self.cache = DynamicCache(config=self.model.config)
        ids_BL = torch.zeros((batch_size, length), dtype=torch.int64, device=self.device.torch_device)
        self.inputs = {"input_ids": ids_BL}
        if padded:
            self.inputs["attention_mask"] = torch.ones_like(ids_BL)
        names = {module: name for name, module in self._base.named_modules()}
        for layer, (key, value) in enumerate(zip(self._states[::2], self._states[1::2], strict=True)):
            with self._near(names[self._layers[layer]]):
                states = [state.empty(batch_size, length, self.device) for state in (key, value)]
            self.cache.update(*states, layer)
        if not self._states:  # the caches of hybrid models hold more than keys and values: run it
            with torch.no_grad(), self.model_context():
                self._with_cache()
        self.inputs["input_ids"] = ids_BL[:, :1].clone()
        if padded:
            self.inputs["attention_mask"] = ids_BL.new_ones(batch_size, length + 1)

    def named_tensors(self) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Yield every tensor that outlives a phase, under a name that stays the same from step to step."""
        modules = list(self.model.named_modules())
        yield from _model_tensors(self.model, modules)
        yield from state_tensors(self.optimizer, _parameters_among(modules))
        yield from _tensor_attributes(self.scaler, ("_scale", "_growth_tracker"), "scaler")
        if self._graphs is not None:
            for name, tensor in self._graphs.buffers.items():
                yield ("buffer", "graphs", name), tensor
        if self.loss is not None:
            yield ("loss", "step"), self.loss
        for name, tensor in (self._held or {}).items() if self._holds_to_step else ():
            yield ("output", name), tensor
        for name, value in self.inputs.items():
            if isinstance(value, torch.Tensor):
                yield ("input", name), value
        if self.sampler is not None and self.sampler.seen_BV is not None:
            yield ("input", "seen"), self.sampler.seen_BV
        yield from self.kept.named_tensors()
        yield from _cache_tensors(self.cache)


NamedTensors = Iterator[tuple[tuple[str, ...], torch.Tensor]]

_NO_TENSORS = {bool, int, float, str, dict, OrderedDict, set, list, tuple, NoneType}
"""types of most attributes of modules, which are told faster than that an object is no tensor"""


def _model_tensors(model: Any, modules: Sequence[tuple[str, torch.nn.Module]]) -> NamedTensors:
    if isinstance(model, FSDPModule):
        yield from sharded_tensors(model)
    else:
        yield from _tensors_of_parameters(modules)
    for name, module in modules:
        if isinstance(module, Linear4bit) and module.quant_state is not None:
            yield from _constants_of(module.quant_state, f"{name}.weight")
        if isinstance(module, Bnb4bitParametrization):  # that of experts
            yield from _constants_of(module.quant_state, name)
        if isinstance(module, Linear8bitLt):  # which its first pass moves from the weight to the layer's state
            for owner in (module.weight, module.state):
                yield from _tensor_attributes(owner, ("SCB",), "parameter", name)
    for prefix, module in modules:
        for name, tensor in _own_tensors(module):
            yield ("buffer", f"{prefix}.{name}"), tensor


def _tensors_of_parameters(modules: Sequence[tuple[str, torch.nn.Module]]) -> NamedTensors:
    for name, parameter in _parameters_among(modules):
        yield ("parameter", name), parameter
        if parameter.grad is not None:
            yield ("gradient", name), parameter.grad


def _parameters_among(modules: Sequence[tuple[str, torch.nn.Module]]) -> Iterator[tuple[str, Any]]:
    """Yield what `Module.named_parameters` does, which would walk through all modules anew."""
    seen: set[int] = set()
    for prefix, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, parameter


def _constants_of(quant_state: Any, name: str) -> NamedTensors:
    constants = ("absmax", "code", "offset")
    yield from _tensor_attributes(quant_state, constants, "parameter", name)
    yield from _tensor_attributes(quant_state.state2, constants, "parameter", name, prefix="nested_")


def _tensor_attributes(owner: Any, attributes: Sequence[str], *name: str, prefix: str = "") -> NamedTensors:
    for attribute in attributes:
        value = getattr(owner, attribute, None)
        if isinstance(value, torch.Tensor):
            yield (*name, prefix + attribute), value


def _states_of(cache: Any) -> list[_State]:
    """Return the key and the value of each layer of a cache that holds nothing else; else an empty list."""
    if {type(layer) for layer in cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer}:
        return []
    states = []
    for layer in cache.layers:
        states += [_State(state.size(1), state.size(3), state.dtype) for state in (layer.keys, layer.values)]
    return states


def _cache_tensors(cache: Any) -> NamedTensors:
    if cache is None:
        return
    for index, layer in enumerate(cache.layers):
        yield from _tensors_of_layer(vars(layer), str(index))


def _tensors_of_layer(attributes: dict[str, Any], index: str) -> NamedTensors:
    """Yield a cache layer's tensors: keys and values, and the states of a recurrent layer."""
    for name, value in attributes.items():
        if isinstance(value, torch.Tensor):
            yield ("kv_cache", index, name), value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_of_layer({f"{name} {i}": member for i, member in enumerate(value)}, index)
        elif isinstance(value, dict):
            yield from _tensors_of_layer({f"{name} {key}": member for key, member in value.items()}, index)


def _counted(facts: ModelFacts) -> dict[str, Any]:
    """Return the numbers of weights, which shards do not tell."""
    names = ("num_parameters", "num_trainable_parameters", "num_quantised_parameters", "num_adapter_parameters")
    return {name: getattr(facts, name) for name in names}


def _linear_shapes(model: Any) -> tuple[tuple[int, int], ...]:
    quant_states = (module.quant_state for module in model.modules() if isinstance(module, Linear4bit))
    return tuple(sorted({(s.shape[0], s.shape[1]) for s in quant_states if s is not None}))


def _own_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a module's buffers, and the tensors that are plain attributes of it."""
    for attributes in (module._buffers, vars(module)):
        for name, value in attributes.items():
            if type(value) not in _NO_TENSORS and isinstance(value, torch.Tensor):
                yield name, value


def _shapes_of_tensors(model: Any) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    """Return the buffers, other tensors and biases of all modules as tensors that hold no memory."""
    shapes = []
    for module in model.modules():
        own = [*_own_tensors(module), *module.named_parameters(recurse=False)]
        for name, tensor in own:
            if name == "bias" or not isinstance(tensor, torch.nn.Parameter):
                shapes.append((module, name, torch.empty_like(tensor, device="meta")))
    return shapes


def _put_back(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    if name in module._parameters:
        module._parameters[name].data = tensor  # type: ignore[union-attr]
    else:
        setattr(module, name, tensor)


def _with_adapter(model: Any, options: peft.LoraConfig, *, wide: bool, empty: bool) -> Any:
    """Return the model with an adapter, in float32 or in its weights' type, whose matrices may be on the meta device.

    Raises:
        ConfigError: peft refuses the layers.
    """
    targets = options.target_modules or ()
    names = targets if isinstance(targets, str) else ",".join(targets)
    try:
        return peft.get_peft_model(model, options, autocast_adapter_dtype=wide, low_cpu_mem_usage=empty)
    except ValueError as error:  # peft's word for what it cannot adapt, such as dropout on the weights of experts
        raise ConfigError(f"--target-modules {names}: peft refuses them: {' '.join(str(error).split())}") from error


def _materialise_adapter(module: Any, device: Device, initial: bool | str) -> None:
    """Put an adapter's matrices on the device, with peft's own initial values."""
    for linear in (*module.lora_A.values(), *module.lora_B.values()):
        for name, meta in list(linear.named_parameters(recurse=False)):
            made = torch.empty(meta.shape, dtype=meta.dtype, device=device.torch_device)
            linear._parameters[name] = torch.nn.Parameter(made, requires_grad=meta.requires_grad)
    for adapter in module.lora_A:
        module.reset_lora_parameters(adapter, initial)


def _peft_clears_cache() -> bool:
    return "auto_clear_cache" in inspect.signature(peft.prepare_model_for_kbit_training).parameters
