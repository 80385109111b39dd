"""`trainer.precision auto`: the fastest precision that a device supports well."""

from typing import Literal

import torch

from lit_cls.errors import UserError

# Lightning's own values, whose type is private, and auto.
Precision = (
    Literal["auto", "64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"]
    | Literal["64", "32", "16", "bf16", "transformer-engine", "transformer-engine-float16"]
    | Literal[64, 32, 16]
)

# By Lightning's name of a precision: the type in which autocast computes products, and the type of everything.
MIXED: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
TRUE: dict[str, torch.dtype] = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def check_precision(name: str) -> None:
    """Refuses an unknown precision."""
    known = ("32-true", *MIXED, *TRUE)
    if name not in known:
        raise UserError(f"precision {name!r} is not one of {', '.join(known)}")


def auto_precision(accelerator: str) -> tuple[Literal["bf16-mixed", "32-true"], str]:
    """The precision for an accelerator, by Lightning's name of it, and why."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator == "cpu" or not has_gpu:
        # torch has no public name for these; a version without them is treated as a CPU without bfloat16.
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, name, lambda: False)() for name in names):
            return "bf16-mixed", "the CPU multiplies in bfloat16"
        return "32-true", "the CPU has no bfloat16 products (AVX512-BF16 or AMX)"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", f"{name} multiplies in bfloat16"
        return "32-true", f"{name} has no bfloat16"
    return "32-true", "no other precision has been measured on this GPU"
