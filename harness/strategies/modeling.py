"""Building a quantised causal language model of any size without ever holding it whole in 16 bit.

The model is laid out on the meta device and then made real weight by weight, so that at most one unquantised layer
exists on the device. Random weights and a checkpoint's go the same way and take the same memory, and so does the
simulation. transformers' own loader would not do: it reserves about the model's size at once and lets threads place
the weights, so that neither its peak nor the order of its allocations is the same twice.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import _assign_is_quantized, get_keys_to_not_convert

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.devices.base import Device, params4bit
from memory_harness.harness.observe.facts import is_expert
from memory_harness.harness.strategies.architecture import decoder_layers, model_on_meta
from memory_harness.harness.strategies.weights import open_weights

INIT_STD = 0.02
"""spread of random weights; Source: initializer_range of the Llama configuration"""
BLOCK, NESTED_BLOCK = 64, 256
"""weights that share a constant, and constants that share one; Source: bitsandbytes/nn/modules.py, functional.py"""
RANDOM_ABSMAX = 2 * INIT_STD
"""the largest of the random weights in a block of a checkpoint that is in 4 bits"""
Initial = Callable[[str, torch.Size, torch.dtype], torch.Tensor]
"""takes a parameter's name, shape and type; returns its value, newly made on the device"""
Packed = Callable[[str, torch.Size], tuple[torch.Tensor, Any]]
"""takes a weight's name and shape; returns it in 4 bits with bitsandbytes' QuantState, both in host memory"""
Finish = Callable[[torch.nn.Module], None]
"""takes each decoder layer once its weights are there, and the model last"""
Near = Callable[[str], AbstractContextManager[Any]]
"""takes a name of the model's; within, what is made lies on the GPU of that part"""
Embed = Callable[[torch.Tensor], torch.nn.Module]
"""takes the table (V, H) of the input embeddings, on the device; returns the module to take instead of them"""


@dataclass(frozen=True)
class Layout:
    """How a model's weights are held.

    Args:
        dtype: of those that are not quantised.
        quantization: of linear layers but the head: `nf4`, `fp4`, `int8` or `none`.
        double_quant: so are their constants.
        experts: so are the experts of a mixture, which are no linear layers.
        wide: layers that are not quantised, by the ends of their names; empty for those that transformers leaves.
        threshold: of inputs to 8-bit products, see `--llm-int8-threshold`.
        storage: type of the tensors that 4-bit weights are packed in.
        compute_dtype: in which quantised layers multiply; None for the same.
        packed_from: the type of the weights that a checkpoint holds in 4 bits, before that; None where it holds none.
    """

    dtype: torch.dtype
    quantization: str = "nf4"
    double_quant: bool = True
    experts: bool = False
    wide: tuple[str, ...] = ()
    threshold: float = 6.0
    storage: torch.dtype = torch.uint8
    compute_dtype: torch.dtype | None = None
    packed_from: torch.dtype | None = None

    @property
    def is_quantised(self) -> bool:
        """Return whether linear layers are bitsandbytes'."""
        return self.quantization != "none"

    @property
    def options(self) -> BitsAndBytesConfig:
        """Return it in transformers' words."""
        if self.quantization == "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=self.threshold)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantization,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute_dtype or self.dtype,
            bnb_4bit_quant_storage=self.storage,
            llm_int8_skip_modules=list(self.wide) or None,
        )


def checkpoint_layout(config: PreTrainedConfig, dtype: torch.dtype) -> Layout | None:
    """Return how a checkpoint that bitsandbytes has quantised holds its weights; None where none has.

    Raises:
        ConfigError: in another way than NF4.
    """
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    given = BitsAndBytesConfig.from_dict(dict(settings))
    if not given.load_in_4bit or given.bnb_4bit_quant_type != "nf4":
        raise ConfigError(
            f"--model: its weights are quantised already, by {given.quantization_method()} (allowed: nf4); give the "
            "16-bit checkpoint"
        )
    wide = tuple(given.llm_int8_skip_modules or ())
    packed_from = config.get_text_config(decoder=True).dtype or config.dtype or dtype
    return Layout(dtype, "nf4", given.bnb_4bit_use_double_quant, wide=wide, packed_from=packed_from)


def model_without_weights(config: PreTrainedConfig, layout: Layout, attention: str = "auto") -> Any:
    """Return the model on the meta device, with bitsandbytes' layers where the layout has them.

    Raises:
        ConfigError: transformers cannot build it, or not with this attention.
    """
    model = model_on_meta(config, layout.dtype, attention)
    return _with_quantised_layers(model, layout) if layout.is_quantised else model


def make_real(
    model: Any,
    device: Device,
    layout: Layout,
    checkpoint: Path | None = None,
    embed: Embed | None = None,
    finish: Finish = lambda part: None,
    near: Near = lambda name: nullcontext(),
) -> None:
    """Give a model without weights its weights, on the device, one after the other; adapters are left as they are.

    Args:
        checkpoint: folder with its weights; random ones without it.
        embed: replaces the input embeddings.
        finish: told of each part that is whole.
        near: where parts lie on several GPUs.

    Raises:
        ConfigError: the checkpoint lacks a weight or has one of another shape, or the embeddings are the head too.
    """
    if embed is not None and _has_tied_head(model):
        raise ConfigError(
            "--embeddings-on-host: the output head of this model is the same weight and stays on the device; "
            "leave it out"
        )
    with _initial_weights(model, device, layout, checkpoint) as (initial, packed):
        _materialise(model, device, layout, initial, packed, embed, finish, near)


@contextmanager
def _initial_weights(
    model: Any, device: Device, layout: Layout, checkpoint: Path | None
) -> Iterator[tuple[Initial, Packed]]:
    """Within, weights are random, or read from the checkpoint's files one at a time."""
    if checkpoint is None:
        yield (
            lambda name, shape, dtype: random_weight(shape, name, device, dtype),
            lambda name, shape: _random_packed(shape, layout, device),
        )
        return
    with open_weights(checkpoint) as weights:
        packed = set(_names_of_4bit_weights(model)) if layout.packed_from is not None else set()
        # of tied weights, which named_parameters gives once, a checkpoint holds one
        parameters = {
            _name_in_checkpoint(name): tuple(parameter.shape)
            for name, parameter in model.named_parameters()
            if ADAPTER not in name
        }
        weights.check({name: shape for name, shape in parameters.items() if name not in packed})
        weights.check_packed({name: shape for name, shape in parameters.items() if name in packed})

        def read(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
            with device.on_host():
                host = weights.read(name, dtype)
            return device.put(host)

        yield read, weights.read_packed


def _names_of_4bit_weights(model: Any) -> Iterator[str]:
    import bitsandbytes

    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            yield f"{_name_in_checkpoint(name)}.weight"


def _with_quantised_layers(model: Any, layout: Layout) -> Any:
    """Return the model on the meta device with bitsandbytes' layers where transformers puts them.

    Source: transformers/quantizers/quantizer_bnb_4bit.py and quantizer_bnb_8bit.py,
    `_process_model_before_weight_loading`.
    """
    unquantised = [*(layout.wide or get_keys_to_not_convert(model)), *(model._keep_in_fp32_modules or ())]
    model = replace_with_bnb_linear(model, modules_to_not_convert=unquantised, quantization_config=layout.options)
    if layout.quantization == "int8":
        model.is_loaded_in_8bit = True
    else:
        model.is_loaded_in_4bit = True
    _assign_is_quantized(model)  # some models ask before they multiply by a weight that may be packed
    return model


ADAPTER = ".lora_"
"""in the names of what peft has put beside a layer, which then is its `base_layer`"""


def _name_in_checkpoint(name: str) -> str:
    return name.replace(".base_layer", "")


def _materialise(
    model: Any,
    device: Device,
    layout: Layout,
    initial: Initial,
    packed: Packed,
    embed: Embed | None,
    finish: Finish,
    near: Near,
) -> None:
    import bitsandbytes
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    made: dict[int, torch.nn.Parameter] = {}
    names = {module: _name_in_checkpoint(name) for name, module in model.named_modules() if ADAPTER not in name}
    table: torch.nn.Embedding = model.get_input_embeddings()

    def end(part: torch.nn.Module) -> None:
        made.clear()  # a part that shares its weights out has others now
        finish(part)

    for module in filter(names.__contains__, _in_load_order(model, end)):
        if embed is not None and module is table:  # in its turn, so that random weights stay what they are
            weight = initial(f"{names[table]}.weight", table.weight.shape, table.weight.dtype)
            model.set_input_embeddings(embed(weight))
            continue
        is_quantised = isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt))
        for name, meta in list(module.named_parameters(recurse=False)):
            full_name = f"{names[module]}.{name}"
            if id(meta) in made:  # tied weights are one parameter
                parameter = made[id(meta)]
            elif is_quantised and name == "weight":
                with near(full_name):
                    if layout.packed_from is None:
                        parameter = _quantised_weight(module, full_name, layout, initial)
                    else:
                        parameter = _packed_weight(module, full_name, device, packed)
                # on CPUs with AVX512-BF16 an evaluation would else repack the weight for good, for a kernel without
                # gradients that no CUDA card has: the training after it would be another one, and a wrong one
                module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
            else:
                # bitsandbytes lays its layers out in float32, whatever the model's type is
                own = layout.dtype if is_quantised else meta.dtype
                with near(full_name):
                    parameter = torch.nn.Parameter(initial(full_name, meta.shape, own), requires_grad=False)
            made[id(meta)] = parameter
            module._parameters[name] = parameter
            if layout.experts and is_expert(module, parameter):
                # the one in 16 bits goes: nothing may refer to it any more
                del made[id(meta)], parameter
                replace_parameter_4bit(module, name, layout.double_quant, layout.quantization)
    _materialise_buffers(model, device, near)


def _has_tied_head(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _in_load_order(model: Any, end: Finish) -> Iterator[torch.nn.Module]:
    """Yield the modules, decoder layers first: the 16-bit embeddings then never hold room that a layer could use."""
    seen: set[torch.nn.Module] = set()
    for part in (*decoder_layers(model), model):
        for module in list(part.modules()):
            if module not in seen:
                seen.add(module)
                yield module
        end(part)


def random_weight(shape: torch.Size, name: str, device: Device, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight on the device as an untrained model has it: biases zero, norms one, the rest around zero.

    Its values hang on its name and the process's seed alone, so that GPUs that share a model out make the same one.
    """
    tensor = torch.empty(shape, dtype=dtype, device=device.torch_device)
    if name.endswith("bias"):
        return tensor.zero_()
    if len(shape) == 1:
        return tensor.fill_(1.0)
    if not device.computes:
        return tensor.normal_(std=INIT_STD)
    generator = torch.Generator(tensor.device).manual_seed(torch.initial_seed() + zlib.crc32(name.encode()))
    return tensor.normal_(std=INIT_STD, generator=generator)


def _quantised_weight(module: Any, name: str, layout: Layout, initial: Initial) -> torch.nn.Parameter:
    """Return a layer's weight in 4 or 8 bits; the 16-bit one is gone."""
    import bitsandbytes

    shape = module.weight.shape
    if issubclass(module.source_cls, Conv1D):  # GPT-2's layers hold their weights transposed
        weight = initial(name, torch.Size(reversed(shape)), layout.dtype).T.contiguous()
    else:
        weight = initial(name, shape, layout.dtype)
    if layout.quantization == "int8":
        return _weight_in_8_bits(weight)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight,
        blocksize=BLOCK,
        compress_statistics=layout.double_quant,
        quant_type=layout.quantization,
        quant_storage=layout.storage,
    )
    module.quant_state = state
    return params4bit(packed, state, module)


def _weight_in_8_bits(weight: torch.Tensor) -> torch.nn.Parameter:
    """Source: bitsandbytes/nn/modules.py, `Int8Params._quantize`."""
    import bitsandbytes

    packed, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.to(torch.float16))
    return bitsandbytes.nn.Int8Params(packed, requires_grad=False, CB=packed, SCB=scales)


def _packed_weight(module: Any, name: str, device: Device, packed: Packed) -> torch.nn.Parameter:
    """Return a layer's weight as a checkpoint holds it, in 4 bits; there never is one in 16."""
    with device.on_host():
        values, state = packed(name, module.weight.shape)
    on_device = device.put(values)
    if state.nested:
        state.offset = device.put(state.offset)
        state.state2.absmax, state.state2.code = device.put(state.state2.absmax), device.put(state.state2.code)
    state.absmax, state.code = device.put(state.absmax), device.put(state.code)
    module.quant_state = state
    return params4bit(on_device, state, module)


def _random_packed(shape: torch.Size, layout: Layout, device: Device) -> tuple[torch.Tensor, Any]:
    """Return values in 4 bits as if they had been drawn around zero, with constants that are all the same."""
    from bitsandbytes.functional import QuantState, get_4bit_type

    host = torch.device("cpu" if device.computes else "meta")
    num_blocks = math.ceil(shape.numel() / BLOCK)
    values = torch.empty((math.ceil(shape.numel() / 2), 1), dtype=torch.uint8, device=host).random_()
    absmax, offset, nested = torch.full((num_blocks,), RANDOM_ABSMAX, device=host), None, None
    if layout.double_quant:
        constants = torch.zeros(math.ceil(num_blocks / NESTED_BLOCK), device=host)
        table = torch.zeros(NESTED_BLOCK, device=host)
        nested = QuantState(constants, code=table, blocksize=NESTED_BLOCK, dtype=torch.float32)
        absmax, offset = absmax.new_zeros(num_blocks, dtype=torch.uint8), absmax.mean()
    code = get_4bit_type("nf4", device=host)
    return values, QuantState(absmax, shape, code, BLOCK, "nf4", layout.packed_from, offset, nested)


def _materialise_buffers(model: Any, device: Device, near: Near) -> None:
    """Compute the buffers that no checkpoint holds, as rotary frequencies, anew: tensors on meta have lost them."""
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # transformers' initialisation leaves it alone
    names = {module: name for name, module in model.named_modules()}
    for owner, module in _with_owners(model, model):
        metas = dict(module.named_buffers(recurse=False))
        if not metas:
            continue
        with device.on_host():
            for name, meta in metas.items():
                module._buffers[name] = torch.zeros(meta.shape, dtype=meta.dtype)
            owner._init_weights(module)
            computed = dict(module.named_buffers(recurse=False))
        for name, host in computed.items():
            with near(names[module]):
                module._buffers[name] = device.put(host)


def _with_owners(model: Any, module: Any) -> Iterator[tuple[Any, torch.nn.Module]]:
    """Yield each module with the (sub)model whose initialisation is responsible for it, in the order of `modules()`."""
    from transformers import PreTrainedModel

    owner = module if isinstance(module, PreTrainedModel) else model
    yield owner, module
    for child in module.children():
        yield from _with_owners(owner, child)
