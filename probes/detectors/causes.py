"""The known causes of an out-of-memory part-way through a LoRA or QLoRA run, each with the test that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from memory_harness.probes.findings import UNEXPLAINED_GROWTH


@dataclass(frozen=True)
class Cause:
    """One way in which a run goes out of memory."""

    id: str
    """the name that findings carry"""
    title: str
    """what happens, in one line"""
    looks_like: str
    """how it shows in a record of memory per phase and step"""
    decisive_test: str
    """what tells it from its look-alikes; empty where the signature decides by itself"""
    fix: str
    known_from: tuple[str, ...]
    """public threads that report it, as repository#number, or documents"""


_CAUSES = (
    # Evaluation and phase boundaries
    Cause(
        id="eval-batch-logits",
        title="The evaluation batch is larger than the training batch, and so are its logits",
        looks_like="Training is flat; one jump in the first evaluation forward. The failed request is eval batch x "
        "length x vocabulary x 4 bytes.",
        decisive_test="Divide the failed request by vocabulary x 4 bytes: the result is the tokens of one "
        "evaluation batch.",
        fix="Evaluate at the training batch size, or compute the loss in chunks.",
        known_from=("transformers TrainingArguments (per_device_eval_batch_size = 8)", "unsloth#1147", "unsloth#5168"),
    ),
    Cause(
        id="logits-fp32-copies",
        title="The loss makes float32 copies of the logits and keeps the log-softmax",
        looks_like="The peak sits at the loss and grows with tokens x vocabulary, in training too: about five times "
        "the float16 logits in forward, six times in backward.",
        decisive_test="A chunked loss, or logits of the last token only, removes the peak.",
        fix="Use a chunked or fused linear cross-entropy.",
        known_from=("transformers#30860", "transformers#31292"),
    ),
    Cause(
        id="logits-hoarded",
        title="Evaluation keeps the logits of every batch for its metrics",
        looks_like="Allocated climbs by one logits tensor with each evaluation batch.",
        decisive_test="Fit allocated against the evaluation batch; with the loss alone the slope is zero.",
        fix="Reduce the logits (argmax) before keeping them.",
        known_from=("transformers#12878", "transformers#15466"),
    ),
    Cause(
        id="logits-hoarded-host",
        title="Evaluation keeps the logits of every batch in host memory",
        looks_like="GPU memory is flat while the process's resident memory climbs during evaluation.",
        decisive_test="Fit resident memory against the evaluation batch.",
        fix="Reduce the logits (argmax) before keeping them.",
        known_from=("transformers#28938", "transformers#25313"),
    ),
    Cause(
        id="outputs-hoarded",
        title="Hidden states, attentions or caches are returned and kept",
        looks_like="As logits-hoarded, but steeper.",
        decisive_test="Look at the names of the kept outputs and the shapes of the tensors that survive.",
        fix="Ask the model for the loss only.",
        known_from=("transformers#20887",),
    ),
    Cause(
        id="eval-use-cache",
        title="The evaluation forward builds a key/value cache",
        looks_like="A constant addition per token in evaluation only: gradient checkpointing switches the cache off "
        "only in training.",
        decisive_test="Run the evaluation again with the cache off.",
        fix="Set use_cache=False.",
        known_from=("transformers#23808",),
    ),
    Cause(
        id="eval-with-grad",
        title="Evaluation records a graph because torch.no_grad is missing",
        looks_like="A jump at the start of evaluation that grows with the number of layers.",
        decisive_test="The outputs of the evaluation have a grad_fn.",
        fix="Evaluate under torch.no_grad or torch.inference_mode.",
        known_from=("widely reported",),
    ),
    Cause(
        id="eval-leftover",
        title="What evaluation leaves behind makes the first training step after it fail",
        looks_like="After evaluation allocated stays high (outputs still alive), or only reserved does (a cache "
        "carved for other sizes).",
        decisive_test="Emptying the cache between the phases cures the second kind only.",
        fix="Drop the references to the last outputs; release cached blocks at the boundary.",
        known_from=("llama-cookbook#320", "axolotl#1813"),
    ),
    Cause(
        id="epoch-hoard",
        title="Outputs of every step are kept until the epoch ends",
        looks_like="Allocated climbs in a line within the epoch and falls back at its end.",
        decisive_test="The slope starts again with each epoch.",
        fix="Aggregate as the epoch goes.",
        known_from=("lightning#15514", "lightning#8453"),
    ),
    # Save, resume, merge
    Cause(
        id="save-doubles",
        title="Saving a checkpoint makes a second copy of the state",
        looks_like="A jump inside the checkpoint phase.",
        decisive_test="Call state_dict() alone and look at the peak.",
        fix="Save the adapter only; copy to the CPU.",
        known_from=("bitsandbytes#324", "peft#447"),
    ),
    Cause(
        id="resume-on-gpu",
        title="Resuming loads the checkpoint to the GPU and keeps it there",
        looks_like="Allocated at the first step lies above that of a fresh run.",
        decisive_test="Compare the first step of a fresh and a resumed run.",
        fix="Load with map_location='cpu' and delete the dictionary.",
        known_from=("transformers#22159",),
    ),
    Cause(
        id="merge-dequantises",
        title="Merging the adapter dequantises the whole base model",
        looks_like="Only after training: about the size of the model in 16 bits.",
        decisive_test="",
        fix="Merge on the CPU, or layer by layer.",
        known_from=("unsloth#432",),
    ),
    Cause(
        id="adapters-accumulate",
        title="Adapters are loaded again and again and never deleted",
        looks_like="Allocated rises by the size of one adapter with each load.",
        decisive_test="Count the adapters in the model.",
        fix="Call delete_adapter.",
        known_from=("peft#738",),
    ),
    # True leaks: allocated grows between equal points of the loop
    Cause(
        id="retained-graph",
        title="A computation graph is kept alive after its step",
        looks_like="Allocated climbs by the activations of one micro-step with every micro-step.",
        decisive_test="The tensors that survive have a grad_fn; follow who refers to them.",
        fix="Use .item() or .detach(); do not hold a loss that was not backwarded, nor use retain_graph.",
        known_from=("PyTorch FAQ", "transformers#6999"),
    ),
    Cause(
        id="tensors-logged",
        title="A logger or a list keeps tensors on the GPU",
        looks_like="Allocated climbs with each logging interval.",
        decisive_test="Change the interval: the slope follows.",
        fix="Log numbers: .item().",
        known_from=("wandb#354",),
    ),
    Cause(
        id="metric-never-reset",
        title="A metric's state is never reset",
        looks_like="Allocated steps up once an epoch.",
        decisive_test="",
        fix="Reset the metric after each epoch.",
        known_from=("geo-deep-learning#582",),
    ),
    Cause(
        id="hook-holds-activations",
        title="A forward hook or a list holds activations",
        looks_like="Allocated climbs with each forward, under torch.no_grad too.",
        decisive_test="Remove the hooks; look at who refers to the survivors.",
        fix="Detach what the hook keeps, and remove the hook.",
        known_from=("opacus#176",),
    ),
    Cause(
        id="kv-cache-held",
        title="A generation's key/value cache outlives its call",
        looks_like="One step at the first generation that is never released, or a slope over generate calls.",
        decisive_test="Tensors of shape (batch, key/value heads, tokens, head size) are among the survivors.",
        fix="Drop the cache object.",
        known_from=("transformers#47731", "mistral-inference#20"),
    ),
    Cause(
        id="reference-cycle",
        title="Reference cycles wait for Python's garbage collector",
        looks_like="A sawtooth in allocated, or a line where the collector is off.",
        decisive_test="One gc.collect() lowers allocated.",
        fix="Break the cycle.",
        known_from=("pytorch#50185",),
    ),
    Cause(
        id="autocast-cache",
        title="Autocast caches cast weights for as long as its context is open",
        looks_like="Allocated grows inside the autocast context and falls when it is left.",
        decisive_test="Run with cache_enabled=False.",
        fix="Leave the context at the end of each step.",
        known_from=("transformers#8403",),
    ),
    Cause(
        id="exception-holds-frames",
        title="The traceback of a caught out-of-memory keeps its frames' tensors alive",
        looks_like="The floor stays raised after a caught out-of-memory.",
        decisive_test="Retry outside the except block.",
        fix="Recover outside the except block.",
        known_from=("pytorch#27600", "pytorch#18853"),
    ),
    Cause(
        id="oom-in-backward",
        title="An out-of-memory inside backward leaves intermediates behind",
        looks_like="Skipping the batch keeps failing, but only after failures in backward.",
        decisive_test="",
        fix="Drop the graph and the gradients, collect garbage, then retry.",
        known_from=("pytorch#82218",),
    ),
    Cause(
        id="recompile-per-shape",
        title="torch.compile or CUDA graphs keep something for each new shape",
        looks_like="Growth only at lengths not seen before.",
        decisive_test="Repeat a length that was seen: flat.",
        fix="Bucket the lengths.",
        known_from=("pytorch#128424",),
    ),
    # Peaks that follow the data
    Cause(
        id="longest-sample",
        title="The longest sample arrives late",
        looks_like="The peak follows the length; what stays between steps is flat.",
        decisive_test="Run the longest sample first.",
        fix="Bucket by length, cap the padded tokens of a batch, or truncate.",
        known_from=("peft#525", "transformers#13794"),
    ),
    Cause(
        id="truncation-missing",
        title="The maximum length is not applied",
        looks_like="Batches hold more tokens than the configured maximum.",
        decisive_test="",
        fix="Truncate.",
        known_from=("fms-hf-tuning#471",),
    ),
    Cause(
        id="fragmentation",
        title="Varying lengths carve the allocator's cache into pieces too small to reuse",
        looks_like="Reserved climbs while the allocated peak is flat; the allocator retries; the failed request is "
        "smaller than reserved minus allocated.",
        decisive_test="The same order of samples with expandable segments, or with one fixed length.",
        fix="Expandable segments, bucketing by length, or releasing cached blocks now and then.",
        known_from=("torchtune#1185",),
    ),
    Cause(
        id="attention-math-fallback",
        title="Attention falls back to the math kernel, which stores all scores",
        looks_like="A peak that grows with the square of the length, only on batches without padding (older cards: "
        "no mask, so enable_gqa, which no fused kernel accepts there).",
        decisive_test="Expand keys and values, or pad one token: the peak goes.",
        fix="Expand keys and values before the attention call.",
        known_from=("transformers#48633", "transformers#45776"),
    ),
    Cause(
        id="padding-to-max",
        title="Every sample is padded to the maximum length",
        looks_like="The worst case at every step; rules out longest-sample and fragmentation.",
        decisive_test="",
        fix="Pad to the longest of the batch, and bucket by length.",
        known_from=("axolotl#498",),
    ),
    Cause(
        id="bucketing-raises-peak",
        title="Bucketing without a cap on tokens puts the longest samples together",
        looks_like="The peak rises after bucketing was switched on.",
        decisive_test="Compare the padded tokens per batch before and after.",
        fix="Cap the padded tokens of a batch.",
        known_from=("transformers#47340", "LLaMA-Factory#3668"),
    ),
    # Configuration offsets
    Cause(
        id="kbit-upcast",
        title="prepare_model_for_kbit_training casts embeddings and output head to float32",
        looks_like="A step while the model loads (1.96 GiB for Llama-3.1-8B).",
        decisive_test="Look at the dtype of the two weights.",
        fix="Leave them in 16 bits.",
        known_from=("trl#4335", "peft#816"),
    ),
    Cause(
        id="checkpointing-lost",
        title="Gradient checkpointing is off, or is lost after an event",
        looks_like="From one step on, the activations of all layers are kept (after a mode switch or a generation).",
        decisive_test="Count the checkpoint calls in a forward.",
        fix="Enable it again after the event.",
        known_from=("transformers#26221",),
    ),
    Cause(
        id="head-trainable",
        title="Output head or embeddings are trainable or were resized",
        looks_like="A step while loading and another at the first optimizer step: weights, gradients and Adam's "
        "states.",
        decisive_test="Count the trainable parameters.",
        fix="Train only the new tokens.",
        known_from=("peft#2376",),
    ),
    Cause(
        id="optimizer-lazy",
        title="The optimizer allocates its state at its first step",
        looks_like="A single rise at the first optimizer step.",
        decisive_test="",
        fix="None needed for LoRA (55 MB at rank 8).",
        known_from=("bitsandbytes#801",),
    ),
    Cause(
        id="device-map-imbalance",
        title="Automatic placement fills one GPU and leaves another nearly empty",
        looks_like="One GPU full, another empty.",
        decisive_test="Count the bytes per device.",
        fix="Write the placement out.",
        known_from=("accelerate#2586",),
    ),
    # What fits and yet trains nothing
    Cause(
        id="zero-gradient",
        title="The gradients are zero, or no numbers: the run goes on and trains nothing",
        looks_like="The loss is not zero and the gradient's norm is, from the first steps on; or the norm is never "
        "finite. Memory is as it should be.",
        decisive_test="Compare the adapter before and after a step: no value has changed.",
        fix="Clear the gradients after the optimizer's step, not before; unfreeze the adapter; detach nothing; "
        "with Unsloth, another version of it or of torch.",
        known_from=("unsloth#1282", "unsloth#3054"),
    ),
    # Environment and host
    Cause(
        id="old-model-alive",
        title="An earlier model is still in the process",
        looks_like="Allocated before the first step lies above what this model needs.",
        decisive_test="Subtract the expected bytes from the actual ones.",
        fix="Restart the process, or drop every reference to the old model.",
        known_from=("pytorch#22684",),
    ),
    Cause(
        id="other-process",
        title="Another process uses the GPU",
        looks_like="The driver's free memory falls while reserved is flat.",
        decisive_test="Subtract reserved from what the driver reports as used.",
        fix="End the other process, or lower the budget.",
        known_from=("docker-python#1044",),
    ),
    Cause(
        id="host-leak",
        title="Host memory grows: worker copies, persistent workers, pinned cache",
        looks_like="Resident memory climbs while GPU memory is flat.",
        decisive_test="Set the number of workers to 0, and switch pinning off.",
        fix="Fewer workers; no Python objects in the dataset that each worker copies.",
        known_from=("pytorch#13246", "pytorch#62066"),
    ),
)

CAUSES: dict[str, Cause] = {cause.id: cause for cause in _CAUSES}
"""The cause table by id."""

UNEXPLAINED = Cause(
    id=UNEXPLAINED_GROWTH,
    title="Memory grew or ran out, and no cause of the table fits",
    looks_like="Any growth or failed request whose size, phase and course match none of the known causes.",
    decisive_test="Read the failed size and the lines that made and hold the memory: the report names what it found.",
    fix="Follow the named line; a wrong name would be worse than none.",
    known_from=(),
)
"""What findings say where they know nothing better; no entry of the table."""
