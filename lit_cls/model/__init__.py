"""Pure torch: GPT-2, its classification head, LoRA, and their weights."""

from lit_cls.model.adapters.lora import LoRAConfig, LoRALinear
from lit_cls.model.backbones.gpt2 import GPTConfig, GPTModel
from lit_cls.model.classifier import GPTClassifier

__all__ = ["GPTClassifier", "GPTConfig", "GPTModel", "LoRAConfig", "LoRALinear"]
