import tempfile

from transformers import AutoModelForCausalLM, LlamaConfig

with tempfile.TemporaryDirectory() as folder:
    LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4
    ).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")
