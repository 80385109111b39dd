"""Pure torch: GPT-2, its classification head, LoRA, and their weights."""

from lit_cls.model.classifier import GPTClassifier
from lit_cls.model.gpt import GPTConfig, GPTModel
from lit_cls.model.lora import LoRAConfig, LoRALinear

__all__ = ["GPTClassifier", "GPTConfig", "GPTModel", "LoRAConfig", "LoRALinear"]
