"""The README of a saved adapter; never imports torch."""

from pathlib import Path

from memory_harness.configs.models import find_model, hub_id
from memory_harness.configs.printable import printable
from memory_harness.harness.data.chat_format import SYSTEM_PROMPT
from memory_harness.harness.log.files import write_whole
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.results.replies import BASE, TUNED

_ROWS = {
    "perplexity": "perplexity per target token",
    "bits_per_byte": "bits per byte of the answers",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
"""field of `MetricsRecord` -> what the card calls it"""


def write_model_card(folder: Path, log: RunLog) -> None:
    """Write `README.md` beside the adapter: what it is of, how it was trained, what it scores, how to load it.

    Raises:
        OSError: the folder cannot be written.
    """
    limits = "" if log.run.has_plain_data else _LIMITS
    parts = (_header(log), _introduction(log), _training(log), _scores(log), _usage(log), limits)
    card = "\n\n".join(map(str.strip, filter(None, parts))) + "\n"
    write_whole(folder / "README.md", printable(card))


def base_model(log: RunLog) -> str:
    """Return the Hub's name of the base model, or what the configuration calls it where it is not from there."""
    name = str(log.run.config["model"]["model"])
    return hub_id(find_model(name)) or name


def _header(log: RunLog) -> str:
    from huggingface_hub import ModelCardData

    base = base_model(log)
    data = ModelCardData(
        base_model=base if base.count("/") == 1 else None,
        language=None if log.run.has_plain_data else "bn",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "qlora"] if log.run.has_plain_data else ["lora", "qlora", "bengali", "empathetic-dialogue"],
    )
    return f"---\n{data.to_yaml()}\n---"


def _introduction(log: RunLog) -> str:
    subject = f"trained on {log.run.corpus}" if log.run.has_plain_data else "empathetic replies in Bengali"
    title = f"# LoRA adapter for {base_model(log)}: {subject}"
    if log.run.model is None or log.run.model.weights != "random":
        return title
    warning = "The base model had random weights: this adapter is a test of the training, and of no other use."
    return f"{title}\n\n**{warning}**"


def _training(log: RunLog) -> str:
    run, config = log.run, log.run.config
    lora, train, model = config["lora"], config["train"], config["model"]
    quantised = "4-bit NF4" if model["quantization"] == "nf4" else model["dtype"]
    done = log.last_step
    sequences = train["train_batch_size"] * train["gradient_accumulation"]
    return "\n".join(
        (
            "## Training",
            f"- data: {run.corpus}, {run.num_train_samples} samples to train, {run.num_eval_samples} held out",
            f"- base: {quantised} weights, computed in {model['dtype']}, at most {config['data']['max_length']} tokens",
            f"- adapter: rank {lora['lora_rank']}, alpha {lora['lora_alpha']}, dropout {lora['lora_dropout']}, on "
            + ", ".join(lora["target_modules"]),
            f"- {done} of {run.total_steps} steps of {sequences} sequences, learning rate {train['learning_rate']}"
            + _losses(log),
            f"- {run.gpu_name} ({run.source}), peak {log.peak_allocated_bytes} bytes allocated,"
            f" {log.peak_reserved_bytes} reserved, of a budget of {run.budget_bytes}",
            "- " + ", ".join(f"{name} {version}" for name, version in run.environment.items()),
        )
    )


def _losses(log: RunLog) -> str:
    losses = [step.loss for step in log.steps if step.loss is not None]
    if not losses:
        return ""
    return f", training loss {losses[0]:.3f} to {losses[-1]:.3f}"


def _scores(log: RunLog) -> str:
    by_model = {record.model: record for record in log.metrics}
    records, titles = [], []
    for model, title in ((TUNED, "with the adapter"), (BASE, "base model")):
        if model in by_model:
            records.append(by_model[model])
            titles.append(title)
    if not records:
        return ""
    lines = ["## Held-out scores", _row("", titles), "|---" * (len(records) + 1) + "|"]
    for field, title in _ROWS.items():
        values = [_score(getattr(record, field)) for record in records]
        if any(values):
            lines.append(_row(title, values))
    lines += ["", f"{records[0].num_replies} replies."]
    for name, signature in records[0].signatures.items():
        lines.append(f"- {name}: `{signature}`")
    return "\n".join(lines)


def _row(title: str, cells: list[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


_OWN_MESSAGES = f"""[
    {{"role": "system", "content": "{SYSTEM_PROMPT}"}},
    {{"role": "user", "content": "আজ মনটা ভালো নেই।"}},
]"""
_PLAIN_MESSAGES = '[{"role": "user", "content": "..."}]'


def _usage(log: RunLog) -> str:
    base, messages = base_model(log), _PLAIN_MESSAGES if log.run.has_plain_data else _OWN_MESSAGES
    return f'''
## Use
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}", device_map="auto")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("{base}")
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs.to(model.device), max_new_tokens=256)[0]))
```
'''


_LIMITS = """
## Limits
It is no therapist and gives no medical advice. Conversations about suicide, self-harm and doses of medicine were kept
out of its training; questions of self-harm must be answered by words that people have vetted, not by this model.
"""
