"""Which trained classifier a command is about: the options that name it, and what they come to.

Everything else about it comes from its checkpoint.
"""

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_cls.commands.parser import CommandParser
from lit_cls.data.options import DataOptions
from lit_cls.data.split_data import LabelledSplit, SplitData, read
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.inference import Classifier, classifier_of
from lit_cls.runs.folder import find_checkpoint
from lit_cls.training.checkpoints import DATA_KEY, PREVIOUS, newest_checkpoint, read_checkpoint

Tell = Callable[[str], None]
_ROOT = "checkpoints"
# What a configuration file says of how a trained classifier is found and run; the rest is about training.
_FROM_CONFIG = ("run_name", "ckpt_path", "trainer.default_root_dir", "trainer.accelerator", "trainer.precision")
# Lightning's short words, which a configuration may have.
_SHORT_PRECISIONS = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Trained:
    """A checkpoint, read, and how it is to run."""

    path: Path
    checkpoint: dict[str, Any]
    """As `read_checkpoint` returns it."""
    device: torch.device
    precision: str | None
    """None: what it was trained in, where the device multiplies in that."""
    weights: str | None
    """Where the GPT-2 file it was trained from has moved to."""

    def classifier(self, precision: str | None = None, packed: bool = True) -> Classifier:
        """The network with its weights in place.

        Args:
            precision: instead of the one that was asked for.
            packed: as for `Classifier`.
        """
        precision = precision or self.precision
        return classifier_of(self.path, self.checkpoint, self.device, self.weights, precision, packed)

    def split(self, name: SplitName, moved: str | None, tell: Tell) -> LabelledSplit:
        """A split of the data that it was trained on.

        Args:
            name: which.
            moved: as for `parts`.
            tell: prints a line, when it is not the split that the checkpoint knows.

        Raises:
            UserError: the data is not to be had, or not readable.
        """
        part = self.parts(moved).splits[name]
        if part.sha256 != self.checkpoint[DATA_KEY]["split_sha256"].get(name):
            also = "" if name == "train" else ": texts that it was trained on may be in it"
            tell(f"note: the {name} split is not the one that {self.path} was trained with{also}")
        return part

    def parts(self, moved: str | None) -> SplitData:
        """All of the data that it was trained on, and the rows that are in no split; read once.

        Args:
            moved: where its file is now; of three files, their folder, or all three as a list; None where it was.

        Raises:
            UserError: the data is not to be had, or not readable.
        """
        options = DataOptions.stored(self.checkpoint[DATA_KEY]["settings"])
        if moved is not None and options.split_files:
            options = replace(options, split=_moved_files(options.split_files, moved))
        elif moved is not None:
            options = replace(options, path=moved)
        options.check()
        return read(options)


def _moved_files(files: tuple[str, str, str], moved: str) -> tuple[str, str, str]:
    """Where the three files are now: below a folder by their names, or as they are listed."""
    names = [Path(file).name for file in files]
    if os.path.isdir(os.path.expanduser(moved)) and len(set(names)) == len(names):
        return str(Path(moved) / names[0]), str(Path(moved) / names[1]), str(Path(moved) / names[2])
    try:
        listed = yaml.safe_load(moved)
    except (yaml.YAMLError, RecursionError):
        listed = None
    if isinstance(listed, list) and len(listed) == len(files) and all(isinstance(file, str) for file in listed):
        return listed[0], listed[1], listed[2]
    raise UserError(
        f"--data.path {moved}: it was trained on three files, {', '.join(files)}. Give the folder that has all three "
        "by these names, or --data.path '[train.csv,validation.csv,test.csv]'"
    )


def add_checkpoint_options(parser: CommandParser) -> None:
    """Adds the options that `trained_of` reads."""
    group = parser.add_argument_group("the classifier")
    for option, metavar, told in (
        ("--ckpt_path", "best|last|PATH", "the checkpoint: of the newest run, or a file"),
        ("--config", "FILE", "the configuration that was trained: it names the run's folder"),
        ("--run_name", "NAME", "the run's name (default: that of the --config file, or fit)"),
        ("--trainer.default_root_dir", "FOLDER", f"the folder of all runs (default: {_ROOT})"),
        ("--model.weights", "PATH", "the GPT-2 file it was trained from, if that has moved"),
        ("--trainer.precision", "PRECISION", "32-true, bf16-mixed, … (default: as trained, if that is fast here)"),
    ):
        short = ("-c",) if option == "--config" else ()
        group.add_argument(*short, option, metavar=metavar, help=told)
    kinds = ("auto", "cpu", "gpu", "cuda", "mps")
    group.add_argument("--trainer.accelerator", choices=kinds, help="what it runs on (default: auto)")


def trained_of(verb: str, args: argparse.Namespace, words: Sequence[str], tell: Tell) -> Trained:
    """The checkpoint that the options name, read and checked.

    Args:
        verb: of the command.
        args: with the options of `add_checkpoint_options`.
        words: as typed behind the verb, for the way out of a mistake.
        tell: prints a line.

    Raises:
        UserError: no such file, configuration or device; damaged; not a checkpoint of ours.
    """
    from_file = {} if args.config is None else _read_config(Path(os.path.expanduser(args.config)))

    def option(name: str, default: str | None = None) -> str | None:
        given = getattr(args, name)
        value = from_file.get(name) if given is None else given
        return default if value is None else value

    stem = "fit" if args.config is None else Path(args.config).stem
    root = Path(os.path.expanduser(option("trainer.default_root_dir", _ROOT) or _ROOT))
    typed = [verb, *words]
    found = find_trained(option("ckpt_path"), root, option("run_name", stem) or stem, typed, tell)
    precision = option("trainer.precision", "auto")
    weights = getattr(args, "model.weights")
    return Trained(
        *found,
        device=_device(option("trainer.accelerator", "auto") or "auto"),
        precision=None if precision == "auto" else _SHORT_PRECISIONS.get(str(precision), precision),
        weights=weights,
    )


def find_trained(
    given: str | None, root: Path, run_name: str, typed: Sequence[str], tell: Tell
) -> tuple[Path, dict[str, Any]]:
    """A checkpoint by path, or `best` or `last` of the newest run of a name; and its content.

    Args:
        given: `--ckpt_path`; None when it was left out.
        root: the folder of all runs.
        run_name: below it.
        typed: the words behind `lit_cls`, for the way out of a mistake.
        tell: prints a line, about each damaged file that is passed over.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if given in ("best", "last"):
        # Killed at the one moment without a last.ckpt, a run has the one before.
        names = (given, Path(PREVIOUS).stem) if given == "last" else (given,)
        found = next(filter(None, (find_checkpoint(root, run_name, name) for name in names)), None)
        if found is None:
            raise UserError(
                f"no run of {run_name!r} below {root} has a {given}.ckpt: train one first\n  {_to_train(typed)}"
            )
        newest = newest_checkpoint(found.parent, tell) if given == "last" else None
        return newest or (found, read_checkpoint(found))
    if given is not None:
        path = Path(os.path.expanduser(given))
        return path, read_checkpoint(path)
    verb = typed[0]
    kept = find_checkpoint(root, run_name, "best") or find_checkpoint(root, run_name, "last")
    if kept is None:
        raise UserError(f"{verb} needs a trained checkpoint: train one first\n  {_to_train(typed)}")
    words = list(typed)
    at = words.index("--") if "--" in words else len(words)
    words[at:at] = ["--ckpt_path", str(kept)]
    raise UserError(f"{verb} needs a trained checkpoint:\n  {shlex.join(['lit_cls', *words])}")


def _to_train(typed: Sequence[str]) -> str:
    """The fit that comes before: with the same options where they are fit's, else with the configuration."""
    verb, *words = typed
    before = ["", *words]
    if verb in ("fit", "validate", "test"):
        given = [w for b, w in zip(before, words, strict=False) if "--ckpt_path" not in (b, w.split("=")[0])]
    else:
        config = {"-c", "--config"}
        given = [w for b, w in zip(before, words, strict=False) if config & {b, w.split("=")[0]}]
    return shlex.join(["lit_cls", "fit", *(given or ["--data.path", "FILE"])])


def _read_config(path: Path) -> dict[str, str]:
    """What `_FROM_CONFIG` names, by the names of the options."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: check --config") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {error}") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{path} is no configuration: it has no options")
    found = {}
    for name in _FROM_CONFIG:
        value: Any = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict | list):
            raise UserError(f"{path}: {name} is no word or number; give --{name} beside it")
        if value is not None:
            found[name] = str(value)
    return found


def _device(accelerator: str) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if accelerator == "gpu":
        accelerator = "mps" if available["mps"] else "cuda"
    if not available.get(accelerator):
        raise UserError(f"trainer.accelerator {accelerator}: this machine has none. Leave the option out, or pass cpu")
    return torch.device(accelerator)
