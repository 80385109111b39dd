"""Transformer families, one file each, and the table of named networks."""

from typing import Literal

from lit_cls.model.backbones import gpt2
from lit_cls.model.backbones.base import Backbone, BackboneSpec, Family, Role

BackboneName = Literal["gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]

BACKBONES: dict[str, BackboneSpec] = {**gpt2.BACKBONES}

__all__ = ["BACKBONES", "Backbone", "BackboneName", "BackboneSpec", "Family", "Role"]
