"""The options that name a trained classifier; its checkpoint, which brings everything else; the one made from it."""

import argparse
import itertools
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_cls.commands.parser import CommandParser, user_path
from lit_cls.data.options import DataOptions
from lit_cls.data.split_data import LabelledSplit, SplitData, read
from lit_cls.errors import RunError, UserError
from lit_cls.inference import Classifier, classifier_of
from lit_cls.io.atomic import check_output_file
from lit_cls.runs.folder import find_checkpoint
from lit_cls.training import checkpoints

Log = Callable[[str], None]
_ROOT = "checkpoints"
# Options of a configuration file that say how a trained classifier is found and run; the rest is about training.
_FROM_CONFIG = ("run_name", "ckpt_path", "trainer.default_root_dir", "trainer.accelerator", "trainer.precision")
# Lightning's short words, which a configuration may have; None is as trained.
_PRECISIONS = {"auto": None, "64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A checkpoint that has been read, with the device and precision to run it in."""

    path: Path
    checkpoint: dict[str, Any]
    device: torch.device
    precision: str | None
    """None: the precision it was trained in, if the device supports that."""
    weights: str | None
    """New path of the weights file it was trained from, if that has moved."""
    data_path: str | None = None
    """New path of its data, if that has moved; of three files, their folder, or all three as a list."""

    def classifier(self, precision: str | None = None, packed: bool = True) -> Classifier:
        """The network with its weights in place; a `precision` given here overrides the option."""
        return classifier_of(self.path, self.checkpoint, self.device, self.weights, precision or self.precision, packed)

    def validation_split(self, log: Log) -> LabelledSplit:
        """The validation split of `data`; a line is logged if it is not the same any more."""
        split = self.data().splits["validation"]
        if split.sha256 != self.checkpoint[checkpoints.DATA_KEY]["split_sha256"].get("validation"):
            other = f"note: the validation split is not the one that {self.path} was trained with"
            log(f"{other}: texts that it was trained on may be in it")
        return split

    def data(self) -> SplitData:
        """All of the data that it was trained on, and the rows that are in no split."""
        options = DataOptions.stored(self.checkpoint[checkpoints.DATA_KEY]["settings"])
        if self.data_path is not None and options.split_files:
            options = replace(options, split=_moved_files(options.split_files, self.data_path))
        elif self.data_path is not None:
            options = replace(options, path=self.data_path)
        options.check()
        return read(options)

    def new_path(self, out: str | None, stem: str) -> Path:
        """The path of a new checkpoint: `--out`, or `<stem>.ckpt` (then `<stem>_1.ckpt`, …) beside this one.

        A UserError if it exists already, cannot be written, or has a name that training overwrites.
        """
        if out is None:
            names = (f"{stem}_{n}.ckpt" if n else f"{stem}.ckpt" for n in itertools.count())
            target = next(path for path in map(self.path.with_name, names) if not os.path.lexists(path))
        else:
            target = user_path(out)
            if target.name in (checkpoints.BEST, checkpoints.LAST, checkpoints.PREVIOUS):
                raise UserError(f"--out {target}: {target.name} is what a training saves, give another name")
        check_output_file(target, "--out")
        return target

    def save_as(self, path: Path, changes: dict[str, Any]) -> None:
        """Writes a new checkpoint: this one without its training, with some entries changed; or raises a RunError."""
        from lit_cls.training.checkpoint_io import AtomicCheckpointIO  # imports Lightning, which takes seconds

        try:
            AtomicCheckpointIO().save_checkpoint({**checkpoints.without_training(self.checkpoint), **changes}, path)
        except OSError as error:
            raise RunError(f"{path} could not be written: {error}. Choose another place with --out") from error

    def in_float32(self, log: Log) -> "TrainedCheckpoint":
        """The same on the CPU in float32, and a note if that is not how it predicts."""
        usual = self.precision or self.checkpoint[checkpoints.KEY]["precision"]
        if (usual, self.device.type) != ("32-true", "cpu"):
            log(f"note: everything is computed in float32 on the CPU, not in {usual} on {self.device.type}")
        return replace(self, device=torch.device("cpu"), precision="32-true")


def _moved_files(files: tuple[str, str, str], moved: str) -> tuple[str, str, str]:
    """The new paths of three files: below a folder by their names, or as they are listed."""
    listed: Any = [str(Path(moved, Path(file).name)) for file in files]
    if not os.path.isdir(os.path.expanduser(moved)) or len(set(listed)) < len(files):
        listed = None
        with suppress(yaml.YAMLError, RecursionError):
            listed = yaml.safe_load(moved)
    if isinstance(listed, list) and [type(file) for file in listed] == [str, str, str]:
        return listed[0], listed[1], listed[2]
    raise UserError(
        f"--data.path {moved}: it was trained on three files, {', '.join(files)}. Give the folder that has all three "
        "by these names, or --data.path '[train.csv,validation.csv,test.csv]'"
    )


def add_checkpoint_options(parser: CommandParser) -> None:
    """Adds the options that `open_checkpoint` reads."""
    group = parser.add_argument_group("the classifier")
    for option, metavar, text in (
        ("--ckpt_path", "best|last|PATH", "the checkpoint: of the newest run, or a file"),
        ("-c --config", "FILE", "the configuration that was trained: it names the run's folder"),
        ("--run_name", "NAME", "the run's name (default: that of the --config file, or fit)"),
        ("--trainer.default_root_dir", "FOLDER", f"the folder of all runs (default: {_ROOT})"),
        ("--model.weights", "PATH", "the weights file it was trained from, if that has moved"),
        ("--trainer.precision", "PRECISION", "32-true, bf16-mixed, … (default: as trained, if that is fast here)"),
    ):
        group.add_argument(*option.split(), metavar=metavar, help=text)
    kinds = ("auto", "cpu", "gpu", "cuda", "mps")
    group.add_argument("--trainer.accelerator", choices=kinds, help="what it runs on (default: auto)")


def add_data_option(parser: CommandParser, use: str = "") -> None:
    """Adds `--data.path`, for data that has moved; `use` says what its validation split is for."""
    moved = "the data it was trained on (three files: their folder), if that has moved"
    use = use and f": its validation split is for {use}"
    parser.add_argument("--data.path", dest="moved_data", metavar="PATH", help=moved + use)


def open_checkpoint(command: str, args: argparse.Namespace, words: Sequence[str], log: Log) -> TrainedCheckpoint:
    """Reads and checks the checkpoint that the options of this module name."""
    options = {} if args.config is None else _read_config(user_path(args.config))
    options.update({name: given for name in _FROM_CONFIG if (given := getattr(args, name)) is not None})
    run_name = options.get("run_name") or ("fit" if args.config is None else Path(args.config).stem)
    root = user_path(options.get("trainer.default_root_dir") or _ROOT)
    path, checkpoint = locate_checkpoint(options.get("ckpt_path"), root, run_name, [command, *words], log)
    device = _device(options.get("trainer.accelerator") or "auto")
    asked = options.get("trainer.precision", "auto")
    precision = _PRECISIONS.get(asked, asked)
    weights, data_path = getattr(args, "model.weights"), getattr(args, "moved_data", None)
    return TrainedCheckpoint(path, checkpoint, device, precision, weights, data_path)


def locate_checkpoint(
    given: str | None, root: Path, run_name: str, typed: Sequence[str], log: Log
) -> tuple[Path, dict[str, Any]]:
    """Finds and reads a checkpoint: by path, or `best` or `last` of the newest run of a name; or raises a UserError.

    `given` is `--ckpt_path`, None when it was left out; `root` the folder of all runs; `typed` the words behind
    `lit_cls`, for hints. A line about each damaged file that is skipped is logged.
    """
    if given in ("best", "last"):
        found = find_checkpoint(root, run_name, given)
        if found is None and given == "last":  # a run that was killed between two renames has the one before
            found = find_checkpoint(root, run_name, Path(checkpoints.PREVIOUS).stem)
        if found is None:
            lacking = f"no run of {run_name!r} below {root} has a {given}.ckpt"
            raise UserError(f"{lacking}: train one first\n  {_to_train(typed)}")
        newest = checkpoints.newest_checkpoint(found.parent, log) if given == "last" else None
        return newest or (found, checkpoints.read_checkpoint(found))
    if given is not None:
        path = user_path(given)
        return path, checkpoints.read_checkpoint(path)
    kept = find_checkpoint(root, run_name, "best") or find_checkpoint(root, run_name, "last")
    if kept is None:
        raise UserError(f"{typed[0]} needs a trained checkpoint: train one first\n  {_to_train(typed)}")
    at = [*typed, "--"].index("--")
    words = ["lit_cls", *typed[:at], "--ckpt_path", str(kept), *typed[at:]]
    raise UserError(f"{typed[0]} needs a trained checkpoint:\n  {shlex.join(words)}")


def _to_train(typed: Sequence[str]) -> str:
    """The fit to run first: with the same options where fit has them, else with the configuration."""
    same_options = typed[0] in ("fit", "validate", "test")
    chosen = {"--ckpt_path"} if same_options else {"-c", "--config"}
    # Of each word, whether it or the one before is such an option.
    given = [w for b, w in itertools.pairwise(typed) if bool(chosen & {b, w.split("=")[0]}) != same_options]
    return shlex.join(["lit_cls", "fit", *(given or ["--data.path", "FILE"])])


def _read_config(path: Path) -> dict[str, str]:
    """The options of `_FROM_CONFIG` that a file sets."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: check --config") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {error}") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{path} is not a configuration: it has no options")
    found = {}
    for name in _FROM_CONFIG:
        value: Any = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict | list):
            raise UserError(f"{path}: {name} is not a word or number; give --{name} beside it")
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
        raise UserError(f"trainer.accelerator {accelerator}: this machine has none; leave the option out, or pass cpu")
    return torch.device(accelerator)
