"""Pure torch: backbones, heads, adapters, and their weights."""

from lit_cls.model.backbones.gpt2 import GPTConfig, GPTModel
from lit_cls.model.classifier import GPTClassifier, TextClassifier

__all__ = ["GPTClassifier", "GPTConfig", "GPTModel", "TextClassifier"]
