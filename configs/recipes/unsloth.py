"""Programs that call Unsloth, or TRL and transformers, read by their syntax and never run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from memory_harness.configs.recipes.draft import Draft, Refused, Target, tables
from memory_harness.configs.recipes.rules import read_bits, read_completions, read_shared

_KINDS = ("config", "trainer", "get_peft_model", "from_pretrained")
_KINDS_OF_TRL = ("config", "trainer", "LoraConfig", "BitsAndBytesConfig", "auto model")
_FIRST = {"from_pretrained": "model_name", "auto model": "model_name", "config": "output_dir"}
"""the first argument of each kind, where it is not the model"""
_ANSWERS_ONLY = "train_on_responses_only"
_ONLY_RUNS = "known only when the program runs"
_OPERATIONS: Any = {ast.Add: operator.add, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


class Call(NamedTuple):
    """A call that decides the training, and its arguments by name."""

    kind: str
    name: str
    values: dict[str, Any]
    is_conditional: bool = False
    """whether a condition that only runs know decides about it"""


_Binding = ast.Assign | ast.AnnAssign | ast.AugAssign


def calls_in(tree: ast.Module, target: Target) -> list[Call]:
    """Return the calls that decide a training, in their order, with names replaced by what they were given before."""
    unreached: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and not node.test.value:
            unreached.update(*map(ast.walk, node.body))
    reached = [node for node in ast.walk(tree) if isinstance(node, (_Binding, ast.Call)) and node not in unreached]
    conditional = _conditional(tree)
    names, found = dict[str, Any](), list[Call]()
    for node in sorted(reached, key=lambda node: (node.end_lineno, node.end_col_offset, isinstance(node, _Binding))):
        if isinstance(node, _Binding):
            names |= _bound(node, names, target, is_known=node not in conditional)
        elif kind := _kind(node.func):
            arguments = {keyword.arg or "**": keyword.value for keyword in node.keywords}
            first = _FIRST.get(kind, "model")
            arguments |= {f"argument {number}" if number else first: part for number, part in enumerate(node.args)}
            values = {key: _value(part, names, target) for key, part in arguments.items()}
            found.append(Call(kind, ast.unparse(node.func).rpartition(".")[2], values, node in conditional))
    return found


def _conditional(tree: ast.Module) -> set[ast.AST]:
    """Return what runs only where a condition holds, or does not; that of the main program always holds."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            found.update(ast.walk(node.body), ast.walk(node.orelse))
        elif isinstance(node, ast.If) and not isinstance(node.test, ast.Constant):
            body = [] if "__name__" in ast.unparse(node.test) else node.body
            found.update(*map(ast.walk, [*body, *node.orelse]))
    return found


def _bound(node: _Binding, names: Mapping[str, Any], target: Target, *, is_known: bool) -> dict[str, Any]:
    """Return the values of the names that a statement assigns, `Refused` where only a run knows them."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if node.value is None:
        return {}
    unknown = Refused(ast.unparse(node), _ONLY_RUNS)
    value = unknown if isinstance(node, ast.AugAssign) or not is_known else _value(node.value, names, target)
    found: dict[str, Any] = {}
    for part in targets:
        pairs: Iterable[tuple[ast.expr, Any]] = [(part, value)]
        if isinstance(part, ast.Tuple):
            are_known = isinstance(value, list) and len(value) == len(part.elts)
            pairs = zip(part.elts, value if are_known else [unknown] * len(part.elts), strict=True)
        found |= {name.id: one for name, one in pairs if isinstance(name, ast.Name)}
    return found


def _kind(function: ast.expr) -> str:
    """Return what a function is for: the model, its adapter, the configuration, the trainer; empty for others."""
    owner, _, name = ast.unparse(function).rpartition(".")
    known = tables()["unsloth"]
    if name == _ANSWERS_ONLY or (owner in known["models"] and name in _KINDS):
        return name
    if name in known["configs"] + known["configs_of_trl"]:
        return "config"
    if name in _KINDS_OF_TRL:
        return name
    if name == "from_pretrained" and owner.startswith("AutoModelFor"):
        return "auto model"
    return "trainer" if name.endswith("Trainer") and not name.startswith("Patch") else ""


def _value(node: ast.expr, names: Mapping[str, Any], target: Target) -> Any:
    try:
        return _constant(node, names, target)
    except (ValueError, TypeError, ArithmeticError):
        return Refused(ast.unparse(node), _ONLY_RUNS)


def _constant(node: ast.expr, names: Mapping[str, Any], target: Target) -> Any:
    """Return the value of an expression of constants. Raises ValueError, TypeError, ArithmeticError: it is none."""
    match node:
        case ast.Name(name) if name in names and not isinstance(names[name], Refused):
            return names[name]
        case ast.Attribute(ast.Name("torch"), name):
            return name
        case ast.List(parts) | ast.Tuple(parts):
            return [_constant(part, names, target) for part in parts]
        case ast.UnaryOp(ast.Not(), part):
            return not _constant(part, names, target)
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            numbers = [float(_constant(part, names, target)) for part in (left, right)]
            result = _OPERATIONS[type(operation)](*numbers)
            return int(result) if result.is_integer() else result
        case ast.Call(function) if ast.unparse(function).endswith("16_supported"):
            return target.half == "bfloat16"
    return ast.literal_eval(node)


def settings_of_trl(calls: Sequence[Call]) -> dict[str, Any]:
    """Return the settings of a program that calls TRL or transformers, with its trainer's name where it is known."""
    calls = [call for call in calls if call.kind != "BitsAndBytesConfig" or _takes_bits(calls)]
    kinds = {call.kind for call in calls}
    settings = settings_of([call for call in calls if call.kind in _KINDS_OF_TRL], _KINDS_OF_TRL)
    known = tables()["unsloth"]["configs_of_trl"]
    names = [call.name for call in calls if call.kind == "config" and call.name in known]
    if names:
        settings.setdefault("trainer", names[0].replace("Config", "Trainer"))
    model = settings.get(f"{settings.get('trainer')}.model")
    if isinstance(model, str):
        settings.setdefault("model_name", model)
    if "LoraConfig" in kinds:
        settings.setdefault("peft_type", "LORA")
    read = {"peft_config": "LoraConfig", "quantization_config": "BitsAndBytesConfig"}
    return {key: value for key, value in settings.items() if read.get(key) not in kinds}


def _takes_bits(calls: Sequence[Call]) -> bool:
    """Return whether a model is given a quantisation, as far as the program shows how its models are made."""
    models = [call.values for call in calls if call.kind == "auto model"]
    return not models or any("**" in values or values.get("quantization_config") is not None for values in models)


def conditions_of(calls: Sequence[Call]) -> list[str]:
    """Return in sentences which calls are taken as made, though a condition decides."""
    names = dict.fromkeys(call.name for call in calls if call.is_conditional)
    return [f"{name} is called under a condition, which is taken to hold" for name in names]


def settings_of(calls: Sequence[Call], kinds: Sequence[str] = (*_KINDS, _ANSWERS_ONLY)) -> dict[str, Any]:
    """Return the settings of the first call of each kind; where calls differ, those of later kinds by `call.name`."""
    first = {call.kind: call for call in reversed(calls)}
    settings: dict[str, Any] = {}
    for call in [first[kind] for kind in kinds if kind in first]:
        for key, value in call.values.items():
            is_own = key == "model" or settings.setdefault(key, value) != value
            settings[f"{call.name}.{key}" if is_own else key] = value
    for call in [call for call in calls if call is not first[call.kind]]:
        settings[f"{call.name} (again)"] = Refused("...", "the first call counts")
    if "trainer" in first:
        settings["trainer"] = first["trainer"].name
    return settings


def read_unsloth(draft: Draft, calls: Sequence[Call]) -> None:
    """Read the settings of a program that calls Unsloth."""
    names, known = {call.kind: call.name for call in reversed(calls)}, tables()["unsloth"]
    if names.get("config", "SFTConfig") in known["configs_of_trl"]:
        draft.defaults |= known["defaults_of_trl"]
    trainer = names.get("trainer", "SFTTrainer").removesuffix("Trainer")
    draft.put("objective", known["objectives"].get(trainer, trainer), "trainer")
    if trainer in ("DPO", "CPO") and draft.get("loss_type") not in (None, "sigmoid"):
        draft.put("objective", draft.get("loss_type"), "loss_type")
    if trainer == "GRPO":
        read_completions(draft)
    if known["objectives"].get(trainer) == "sft":
        draft.put("loss", "chunked")  # its fused cross-entropy
        draft.put("train_on_prompts", _ANSWERS_ONLY not in names)
        draft.put("max_length", draft.get("max_seq_length"), "max_seq_length", "max_length")
    has_bits = draft.get("load_in_4bit") and not draft.get("full_finetuning") and not draft.get("load_in_16bit")
    read_bits(draft, 8 * bool(draft.get("load_in_8bit")) or 4 * bool(has_bits), "load_in_8bit", "load_in_4bit")
    draft.put("dtype", draft.get("dtype") or draft.target.half, "dtype", "bf16", "fp16")  # mixed precision follows it
    if not draft.gives("dtype"):
        draft.remarks.append(f"dtype=None is {draft.target.half} on {draft.target.card}")
    wanted = draft.get("use_gradient_checkpointing")
    draft.defaults["gradient_checkpointing"] = bool(wanted)
    draft.put("offload_activations", "unsloth" if wanted else False)  # that strategy offloads always
    draft.put("offload_activations", wanted, "use_gradient_checkpointing")
    draft.defaults["finetuning_type"] = "lora" if "get_peft_model" in names else "full"
    read_shared(draft)
    saved = [name for name in draft.fields.get("target_modules", ()) if name in known["saved"]]
    if saved:
        draft.put("target_modules", [name for name in draft.fields["target_modules"] if name not in saved])
        draft.put("modules_to_save", saved, "target_modules")
