"""Transformer families, one file each, and the table of named networks."""

from typing import Literal

from lit_cls.model.backbones.base import Backbone, BackboneSpec, Family, HubFile, Role
from lit_cls.model.backbones.gpt2 import FAMILY as GPT2_FAMILY
from lit_cls.model.backbones.gpt2 import GPTConfig

__all__ = ["BACKBONES", "Backbone", "BackboneName", "BackboneSpec", "Family", "Role"]

BackboneName = Literal["gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]

BACKBONES: dict[str, BackboneSpec] = {
    # For trying out: the shape of minGPT's "gpt-nano", with GPT-2's vocabulary; there are no pretrained weights.
    "gpt2-nano": BackboneSpec(GPT2_FAMILY, GPTConfig(emb_dim=48, n_heads=3, n_layers=3)),
    "gpt2-small": BackboneSpec(
        GPT2_FAMILY,
        GPTConfig(emb_dim=768, n_heads=12, n_layers=12),
        HubFile(
            "openai-community/gpt2",
            "607a30d783dfa663caf39e06633721c8d4cfcd7e",
            "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
        ),
    ),
    "gpt2-medium": BackboneSpec(
        GPT2_FAMILY,
        GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
        HubFile("openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"),
    ),
    "gpt2-large": BackboneSpec(
        GPT2_FAMILY,
        GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
        HubFile("openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519"),
    ),
    "gpt2-xl": BackboneSpec(
        GPT2_FAMILY,
        GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
        HubFile(
            "openai-community/gpt2-xl",
            "15ea56dee5df4983c59b2538573817e1667135e2",
            "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
        ),
    ),
}
