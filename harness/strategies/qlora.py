"""QLoRA: a 4-bit base, float32 adapters, mixed precision, gradient checkpointing, PyTorch's or bitsandbytes' AdamW."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import DynamicCache

from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, left_padded
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.records import ForwardFacts, ModelFacts
from memory_harness.harness.observe.facts import forward_facts
from memory_harness.harness.strategies.adapter import export_adapter, import_adapter
from memory_harness.harness.strategies.modeling import quantised_model, transformers_config
from memory_harness.harness.strategies.sampling import GREEDY, Sampler, Sampling
from memory_harness.harness.strategies.weights import find_checkpoint
from memory_harness.harness.techniques.activation_offload import offload_activations
from memory_harness.harness.techniques.chunked_loss import chunked_causal_lm_loss, loss_chunks
from memory_harness.harness.techniques.chunks import num_chunks
from memory_harness.harness.techniques.expanded_heads import expand_heads
from memory_harness.harness.techniques.host_embeddings import HostEmbedding, num_host_weights
from memory_harness.harness.techniques.liger_loss import liger_causal_lm_loss
from memory_harness.harness.techniques.tiled_mlp import tile_mlp
from memory_harness.harness.train import checkpoint

CHECKPOINTING = {"use_reentrant": False}


class QLoraStrategy:
    """Holds the model, the optimizer and the loss scaler of one run."""

    def __init__(self, config: RunConfig, device: Device) -> None:
        self.config = config
        self.device = device
        self.dtype: torch.dtype = getattr(torch, config.model.dtype)
        self.model: Any = None
        self.optimizer: Any = None
        self.scaler: Any = None
        self.inputs: dict[str, torch.Tensor] = {}
        self.loss: torch.Tensor | None = None
        """sum of the step's micro-batches so far, without graph"""
        self.forward_facts: ForwardFacts | None = None
        self.cache: Any = None
        self.sampler: Sampler | None = None
        self._cache_dtype = self.dtype
        self.graph: Any = None
        self._held: Any = None
        self._pad_id = self._vocab_size = 0
        self.linear_shapes: tuple[tuple[int, int], ...] = ()
        """the (out_features, in_features) that occur among the 4-bit layers"""

    def load(self) -> ModelFacts:
        """Build the quantised model, prepare it, add the adapter and make the optimizer."""
        shape = find_model(self.config.model.model)
        checkpoint = self.checkpoint_of(shape)
        config = transformers_config(shape)
        config.use_cache = self.config.model.use_cache
        quantise = self.config.model.quantization == "nf4"
        double_quant = self.config.model.double_quant
        embed = self._embed_on_host if self.config.model.embeddings_on_host else None
        self.model = quantised_model(config, self.device, self.dtype, quantise, double_quant, checkpoint, embed)
        if self.config.model.expand_kv:
            expand_heads(self.model)
        if self.config.model.tiled_mlp:
            tile_mlp(self.model, self.mlp_chunks, lambda: self.device.autocast(self.dtype))
        self.device.empty_cache()
        self._prepare()
        if self.config.model.offload_activations:
            offload_activations(self.model, self.device)
        self._add_adapter()
        return self.adopt(self.model, shape, checkpoint)

    def adopt(self, model: Any, shape: ModelShape, checkpoint: Path | None) -> ModelFacts:
        """Train a model of this shape that has its adapter, its weights from the checkpoint: make the optimizer."""
        self.model = model
        self._pad_id, self._vocab_size = shape.pad_token_id, shape.vocab_size
        self.make_optimizer()
        parameters = list(model.parameters())
        states = (getattr(p, "quant_state", None) for p in parameters)
        self.linear_shapes = tuple(sorted({(s.shape[0], s.shape[1]) for s in states if s is not None}))
        return ModelFacts(
            name=shape.name,
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            num_parameters=peft_num_parameters(model),
            num_trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            weights="none" if not self.device.computes else "random" if checkpoint is None else "checkpoint",
            tie_word_embeddings=shape.tie_word_embeddings,
        )

    def checkpoint_of(self, shape: ModelShape) -> Path | None:
        """Return the folder of the model's weights; None where there is none, or where no values are wanted."""
        if not self.device.computes or self.config.model.random_weights:
            return None
        return find_checkpoint(shape)

    def _embed_on_host(self, weight_VH: torch.Tensor) -> HostEmbedding:
        # as an upcast table would give them
        dtype = torch.float32 if self.config.model.kbit_upcast else self.dtype
        return HostEmbedding(weight_VH, self.device, dtype)

    def mlp_chunks(self, training: bool, tokens: int) -> int:
        """Return into how many chunks feed-forward blocks cut a batch of so many tokens."""
        at_once = self.config.model.mlp_chunk_tokens
        if not self.config.model.tiled_mlp or tokens <= at_once:
            return 1
        full = self.config.train.train_batch_size if training else self.config.eval.eval_batch_size
        return num_chunks(self.config, full, at_once)

    def _prepare(self) -> None:
        checkpointing = self.config.model.gradient_checkpointing
        if self.config.model.kbit_upcast:
            # the device empties its own cache below, so that a simulated run does it too
            options = {"auto_clear_cache": False} if _peft_clears_cache() else {}
            peft.prepare_model_for_kbit_training(
                self.model,
                use_gradient_checkpointing=checkpointing,
                gradient_checkpointing_kwargs=CHECKPOINTING,
                **options,
            )
            self.device.empty_cache()
            return
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        if checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)

    def _add_adapter(self) -> None:
        lora = self.config.lora
        options = peft.LoraConfig(
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        )
        with self.device.on_host():  # on the meta device, made real below: the same way on every device
            self.model = peft.get_peft_model(self.model, options, low_cpu_mem_usage=True)
        for module in self.model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                _materialise_adapter(module, self.device)
        self.model.train()

    def make_optimizer(self) -> None:
        """Make the optimizer, and the loss scaler where the dtype needs one."""
        trainable, learning_rate = self.trainable(), self.config.train.learning_rate
        if self.config.train.optimizer in ("adamw_8bit", "paged_adamw_8bit"):
            from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

            optimizer = AdamW8bit if self.config.train.optimizer == "adamw_8bit" else PagedAdamW8bit
            self.optimizer = optimizer(trainable, lr=learning_rate)
        else:
            # foreach is what CUDA takes by default; asked for, because a CPU tensor would silently take the other path
            self.optimizer = torch.optim.AdamW(trainable, lr=learning_rate, foreach=True)
        self.scaler = self._new_scaler({})
        # makes the scale now: otherwise the first backward pass would allocate what no other does
        self.scaler.scale(torch.zeros((), device=self.device.torch_device))

    def _new_scaler(self, state: dict[str, Any]) -> Any:
        scaler = torch.amp.GradScaler(self.device.torch_device.type, enabled=self.dtype is torch.float16)
        if state:
            scaler.load_state_dict(state)
        return scaler

    def put(self, batch: Batch, *, training: bool) -> None:
        """Copy ids and labels to the device, and the mask where the batch has padding; each int64 (B, L)."""
        arrays = batch.arrays(self._pad_id, self._vocab_size)
        if not batch.has_padding:
            # without padding the mask says nothing, and transformers would read it back to find that out
            del arrays["attention_mask"]
        self.inputs = {name: self.device.put(array) for name, array in arrays.items()}

    def forward(self, num_target_tokens: int) -> None:
        """Compute the loss over the batch that was put."""
        with self.model_context():
            self.graph, output = self._causal_lm_loss(num_target_tokens, self.config.train.train_batch_size)
        # the output holds the logits; a recipe that keeps it pays for them throughout the backward pass
        self._held = output if self.config.train.hold_outputs else None
        loss = self.graph.detach()
        self.loss = loss.clone() if self.loss is None else self.loss + loss

    @contextmanager
    def model_context(self) -> Iterator[None]:
        """Mixed precision; transformers reads back whether all tokens are real, which the batch knows."""
        all_real = 0.0 if "attention_mask" in self.inputs else 1.0
        with self.device.autocast(self.dtype), self.device.assuming(all_real):
            yield

    def _causal_lm_loss(self, num_items: int, batch_size: int) -> tuple[torch.Tensor, Any]:
        """Return the loss over the batch that was put, and the model's output, which only the full loss has."""
        model, output = self.model.get_base_model(), None
        if self.config.train.loss == "chunked":
            chunks = loss_chunks(self.config, batch_size)
            loss = chunked_causal_lm_loss(model, self.inputs, num_items, chunks, self.dtype)
        elif self.config.train.loss == "liger":
            loss = liger_causal_lm_loss(model, self.inputs, num_items, self.dtype, self.device)
        else:
            output = self.model(**self.inputs, num_items_in_batch=num_items)
            loss = output.loss
        cache = getattr(output, "past_key_values", None)
        self.forward_facts = forward_facts(self.model, [loss], cache, model.model.layers)
        return loss, output

    def backward(self) -> None:
        """Scale the loss and add its gradients."""
        self.scaler.scale(self.graph).backward()
        self.graph = self._held = None
        self.inputs = {}

    def summands(self) -> list[torch.Tensor]:
        """Return gradients and loss, made where no micro-batch of this step was this GPU's."""
        for parameter in self.trainable():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.loss is None:
            self.loss = torch.zeros((), device=self.device.torch_device)
            self.scaler.scale(self.loss)  # makes the scale, which a new scaler lacks until it has scaled something
        return [*(p.grad for p in self.trainable() if p.grad is not None), self.loss]

    def optimizer_step(self, learning_rate: float) -> tuple[float | None, float | None]:
        """Unscale, clip, update unless a gradient overflowed, and free the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        gradients = [p.grad for p in self.trainable() if p.grad is not None]
        self.scaler.unscale_(self.optimizer)
        norm = self._clip(gradients)
        if gradients:  # a scaler refuses to step without; the norm says so
            with self.device.assuming(0.0):  # no overflow
                self.scaler.step(self.optimizer)
                self.scaler.update()
        gradients.clear()
        self.optimizer.zero_grad(set_to_none=True)
        loss, self.loss = self.loss, None
        return None if loss is None else self.device.read(loss), self.device.read(norm)

    def _clip(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Return the gradients' norm before clipping; unclipped too, it shows whether anything trains."""
        max_norm = self.config.train.max_grad_norm
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.trainable(), max_norm, norm, foreach=True)
        return norm

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the adapter's parameters."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def evaluate(self) -> float | None:
        """Return the batch's summed loss; the logits die before the next batch."""
        self.model.eval()
        with torch.no_grad(), self.model_context():
            loss, _ = self._causal_lm_loss(1, self.config.eval.eval_batch_size)
        self.model.train()
        self.inputs = {}
        return self.device.read(loss)

    def prefill(self, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY) -> list[int]:
        """Start the cache; only the last position's logits are computed: B·V, not B·T·V."""
        self.model.eval()
        self.sampler = Sampler(sampling, prompts, self._vocab_size, self.device)
        self.cache = DynamicCache(config=self.model.config)
        self.inputs = {name: self.device.put(array) for name, array in left_padded(prompts, self._pad_id).items()}
        return self.decode()

    def decode(self) -> list[int]:
        """Run the last tokens through the model and put the next ones in their place."""
        with torch.no_grad(), self.model_context():
            output = self.model(**self.inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self._cache_dtype = self.cache.layers[0].keys.dtype
        assert self.sampler is not None, "prefill comes first"
        self.inputs["input_ids"] = self.sampler(output.logits[:, -1])
        if (mask := self.inputs.get("attention_mask")) is not None:
            self.inputs["attention_mask"] = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        tokens = [self.device.read(token) for token in self.inputs["input_ids"][:, 0]]
        return [self._pad_id if token is None else int(token) for token in tokens]

    def release(self) -> None:
        """Drop the cache and return to training."""
        self.cache = self.sampler = None
        self.inputs = {}
        self.model.train()

    def without_adapter(self) -> AbstractContextManager[None]:
        """Let peft pass the adapter by; nothing is copied or merged."""
        return self.model.disable_adapter()

    def export(self, folder: Path) -> None:
        """Write the adapter for peft; see `harness.strategies.adapter`."""
        export_adapter(folder, self.model, self.config.model.model, self.device)

    def load_adapter(self, folder: Path) -> None:
        """Load what `export` wrote."""
        import_adapter(folder, self.model, self.device)

    def save(self, folder: Path) -> None:
        """Write adapter, optimizer and scaler; see `harness.train.checkpoint`."""
        checkpoint.save(folder, self.model, self.optimizer, self.scaler, self.device)

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        checkpoint.restore(folder, self.model, self.optimizer, self.scaler, self.device)

    def trainable_bytes(self) -> int:
        """Return what the adapter's parameters take."""
        return sum(p.numel() * p.element_size() for p in self.trainable())

    def host_copy(self) -> dict[str, Any]:
        """Return adapter, optimizer and scaler as they are, in host memory."""
        return checkpoint.host_copy(self.model, self.optimizer, self.scaler, self.device)

    def put_back(self, state: dict[str, Any]) -> None:
        """Undo whatever has happened to them since `host_copy`."""
        checkpoint.put_back(state, self.model, self.optimizer, self.scaler)

    def abandon(self) -> None:
        """Drop everything of a step, an evaluation batch or a generation that did not end."""
        self.graph = self._held = self.loss = self.cache = self.sampler = None
        self.inputs = {}
        self.optimizer.zero_grad(set_to_none=True)
        # the old one may believe that gradients are unscaled; the new one allocates nothing before it is used
        self.scaler = self._new_scaler(self.scaler.state_dict())
        self.model.train()

    def pretend_cache(self, batch_size: int, length: int, padded: bool, sampling: Sampling = GREEDY) -> None:
        """Replace the cache by an empty one of `length` tokens, as decoding would find it there."""
        self.sampler = Sampler(sampling, [()] * batch_size, self._vocab_size, self.device)
        config = self.model.config
        shape = (batch_size, config.num_key_value_heads, length, config.head_dim)
        self.cache = DynamicCache(config=config)
        for layer in range(config.num_hidden_layers):
            states = [torch.empty(shape, dtype=self._cache_dtype, device=self.device.torch_device) for _ in range(2)]
            self.cache.update(*states, layer)
        self.inputs = {"input_ids": torch.zeros((batch_size, 1), dtype=torch.int64, device=self.device.torch_device)}
        if padded:
            self.inputs["attention_mask"] = self.inputs["input_ids"].new_ones(batch_size, length + 1)
        self.model.eval()

    def named_tensors(self) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Yield every tensor that outlives a phase, under a name that stays the same from step to step."""
        for name, parameter in self.model.named_parameters():
            yield ("parameter", name), parameter
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                yield from _quant_state_tensors(name, state)
            if parameter.grad is not None:
                yield ("gradient", name), parameter.grad
        for name, buffer in self.model.named_buffers():
            yield ("buffer", name), buffer
        for name, table in getattr(self.optimizer, "name2qmap", {}).items():  # bitsandbytes', made with the optimizer
            yield ("optimizer_state", "table", name), table
        for index, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    yield ("optimizer_state", str(index), key), value
        for attribute in ("_scale", "_growth_tracker"):
            if isinstance(value := getattr(self.scaler, attribute, None), torch.Tensor):
                yield ("scaler", attribute), value
        if self.loss is not None:
            yield ("loss", "step"), self.loss
        for name, tensor in self.inputs.items():
            yield ("input", name), tensor
        if self.sampler is not None and self.sampler.seen_BV is not None:
            yield ("input", "seen"), self.sampler.seen_BV
        for index, layer in enumerate(self.cache.layers if self.cache is not None else ()):
            yield ("kv_cache", str(index), "keys"), layer.keys
            yield ("kv_cache", str(index), "values"), layer.values


def _materialise_adapter(module: Any, device: Device) -> None:
    """Put an adapter's float32 matrices on the device, with peft's own initial values."""
    for linear in (*module.lora_A.values(), *module.lora_B.values()):
        for name, meta in list(linear.named_parameters(recurse=False)):
            linear._parameters[name] = torch.nn.Parameter(torch.empty(meta.shape, device=device.torch_device))
    for adapter in module.lora_A:
        module.reset_lora_parameters(adapter, True)


def _quant_state_tensors(name: str, state: Any) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    for prefix, part in (("", state), ("nested_", state.state2)):
        for attribute in ("absmax", "code", "offset"):
            if isinstance(value := getattr(part, attribute, None), torch.Tensor):
                yield ("parameter", name, prefix + attribute), value


def peft_num_parameters(model: Any) -> int:
    """Return the number of weights, a packed byte of 4-bit weights counted as two."""
    on_device = sum(p.numel() * (2 if hasattr(p, "quant_state") else 1) for p in model.parameters())
    return on_device + num_host_weights(model)


def _peft_clears_cache() -> bool:
    return "auto_clear_cache" in inspect.signature(peft.prepare_model_for_kbit_training).parameters
