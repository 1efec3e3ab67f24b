"""Unsloth: its loader, kernels, checkpointing and fused loss, trained as QLoRA trains and recorded alike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Batch, left_padded
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import DeviceError
from memory_harness.harness.log.records import ForwardFacts, ModelFacts
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.random_checkpoint import write_random_checkpoint
from memory_harness.harness.strategies.sampling import GREEDY, Sampler, Sampling
from memory_harness.harness.strategies.unsloth_package import NO_GPU, import_unsloth, missing_kernels

DECODE_BUFFERS = (
    "paged_attention_K",
    "paged_attention_V",
    "paged_attention",
    "temp_QA",
    "temp_KV",
    "RH_Q",
    "temp_O",
    "attention",
)
"""What decoding leaves on each attention layer until the next full forward pass; the first three are the cache.
Source: alloc_decode_buffers in unsloth/models/_decode_graphs.py, 2026.10.9"""


class UnslothStrategy:
    """Holds Unsloth's model, and a QLoRA strategy that trains it.

    Raises:
        DeviceError: there is no GPU.
        ConfigError: Unsloth is missing, does not fit what is installed, or comes too late to be imported.
    """

    def __init__(self, config: RunConfig, device: Device) -> None:
        if device.source != "cuda":
            raise DeviceError(f"--strategy unsloth: {NO_GPU}")
        import_unsloth(config)
        self.config = config
        self.device = device
        self.dtype: torch.dtype = getattr(torch, config.model.dtype)
        # Unsloth replaces the model's own loss, which is therefore the one to ask for
        self.training = training = QLoraStrategy(config.with_fields(loss="full", hold_outputs=False), device)
        self.put, self.backward = training.put, training.backward
        self.summands, self.optimizer_step = training.summands, training.optimizer_step
        self.without_adapter, self.export = training.without_adapter, training.export
        self.load_adapter, self.save, self.restore = training.load_adapter, training.save, training.restore
        self.training_state, self.write_state = training.training_state, training.write_state
        self.adapter_on_host, self.trainable_bytes = training.adapter_on_host, training.trainable_bytes
        self.end_batch, self.end_evaluation = training.end_batch, training.end_evaluation
        self.host_copy, self.undo_to = training.host_copy, training.undo_to
        self.forward_facts: ForwardFacts | None = None
        self.planned: ModelFacts | None = None
        self._inputs: dict[str, torch.Tensor] = {}
        self._cache: Any = None
        self._sampler: Sampler | None = None
        self._pad_id = self._vocab_size = 0

    @property
    def model(self) -> Any:
        """The peft model."""
        return self.training.model

    def load(self) -> ModelFacts:
        """Load by Unsloth, from the checkpoint or from one written with random weights; add the adapter."""
        shape = find_model(self.config.model.model)
        self._pad_id, self._vocab_size = shape.pad_token_id, shape.vocab_size
        checkpoint = self.training.checkpoint_of(shape)
        with nullcontext(checkpoint) if checkpoint else self._random_checkpoint(shape) as folder:
            model = self._with_adapter(self._loaded(folder))
        facts = self.training.adopt(model, shape, checkpoint)
        self._attach_scaler()
        self._to_training()
        self.device.empty_cache()
        return replace(facts, fallbacks=(*missing_kernels(), *slow_layers(model)))

    @contextmanager
    def _random_checkpoint(self, shape: ModelShape) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            write_random_checkpoint(shape, Path(folder), self.dtype, self.device)
            self.device.empty_cache()
            yield Path(folder)

    def _loaded(self, folder: Path) -> Any:
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            # replies continue prompts that may be as long as the longest sample
            max_seq_length=self.config.data.max_length + self.config.eval.max_new_tokens,
            dtype=self.dtype,
            load_in_4bit=self.config.model.quantization == "nf4",
            use_gradient_checkpointing=self._checkpointing,
            use_exact_model_name=True,
            random_state=self.config.data.seed,
            local_files_only=True,
            trust_remote_code=False,
        )
        return model

    def _with_adapter(self, model: Any) -> Any:
        from unsloth import FastLanguageModel

        lora = self.config.lora
        return FastLanguageModel.get_peft_model(
            model,
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=list(lora.target_modules),
            use_gradient_checkpointing=self._checkpointing,
            random_state=self.config.data.seed,
        )

    @property
    def _checkpointing(self) -> str | bool:
        return "unsloth" if self.config.model.gradient_checkpointing else False

    def _attach_scaler(self) -> None:
        """Let the fused loss, which makes its gradients in the forward pass, scale them before float16 flushes them."""
        if self.training.scaler.is_enabled():
            self.model.get_base_model().accelerator_scaler = self.training.scaler

    def forward(self, num_target_tokens: float) -> None:
        """Compute Unsloth's fused loss over the batch that was put."""
        self.training.forward(num_target_tokens)
        self.forward_facts = self.training.forward_facts

    def evaluate(self) -> float | None:
        """Return the batch's summed loss."""
        loss = self.training.evaluate()
        self.forward_facts = self.training.forward_facts
        return loss

    def score(self, batches: Sequence[Batch]) -> None:
        """Compute what only GRPO asks for, which is not trained with Unsloth."""
        self.training.score(batches)

    def prefill(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, *, rolls_out: bool = False
    ) -> list[int]:
        """Start Unsloth's cache; only the last position's logits are computed."""
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(self.model)
        self._sampler = Sampler(sampling, prompts, self._vocab_size, self.device)
        self._inputs = {name: self.device.put(array) for name, array in left_padded(prompts, self._pad_id).items()}
        if "attention_mask" in self._inputs:  # else positions are those of the columns
            self._inputs["position_ids"] = _positions(self._inputs["attention_mask"])
        return self.decode()

    def decode(self) -> list[int]:
        """Run the last tokens through the model and put the next ones in their place."""
        with torch.no_grad(), self.device.autocast(self.dtype):
            output = self.model(
                **self._inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1, return_dict=True
            )
        self._cache = output.past_key_values
        assert self._sampler is not None, "prefill comes first"
        tokens = self._sampler(output.logits[:, -1])
        self._append(tokens)
        return list(map(int, tokens[:, 0].tolist()))

    def _append(self, tokens: torch.Tensor) -> None:
        """Make the chosen tokens the next inputs, one position further on."""
        length = self._cache[0][0].shape[-2]
        positions = torch.full_like(tokens, length)
        if (mask := self._inputs.get("attention_mask")) is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = _positions(mask)[:, -1:]
            self._inputs["attention_mask"] = mask
        self._inputs |= {"input_ids": tokens, "position_ids": positions}

    def release(self) -> None:
        """Drop the cache, the copies of it on the attention layers too, and return to training."""
        self._cache = self._sampler = None
        self._inputs = {}
        for layer in self.model.get_base_model().model.layers:
            for name in DECODE_BUFFERS:
                if hasattr(layer.self_attn, name):
                    delattr(layer.self_attn, name)
        self._to_training()

    def _to_training(self) -> None:
        from unsloth import FastLanguageModel

        FastLanguageModel.for_training(self.model)
        self.model.config.use_cache = False  # evaluation needs none

    def abandon(self) -> None:
        """Drop everything of a step, an evaluation batch or a generation that did not end."""
        self.training.abandon()
        self._attach_scaler()  # a new one
        self.release()


def _positions(mask_BT: torch.Tensor) -> torch.Tensor:
    """Return each token's place among the real ones of its row; padding counts as the first."""
    return (mask_BT.cumsum(dim=-1) - 1).clamp(min=0)


def slow_layers(model: Any) -> list[str]:
    """Return in words on how many layers Unsloth left attention's adapters to peft's slower code."""
    from unsloth.models.llama import original_apply_o, original_apply_qkv

    attention = [layer.self_attn for layer in model.get_base_model().model.layers]
    slow = sum(a.apply_qkv is original_apply_qkv or a.apply_o is original_apply_o for a in attention)
    if not slow:
        return []
    return [f"{slow} of {len(attention)} layers have adapters that Unsloth's fused kernels do not take: peft runs them"]
