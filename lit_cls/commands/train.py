"""fit, validate and test, through LightningCLI."""

import os
import traceback
from argparse import SUPPRESS
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console

from lit_cls.commands.checkpoint_options import find_trained
from lit_cls.commands.config_safety import check_class_paths, only_allowed_classes
from lit_cls.commands.parser_errors import check_device, check_trainer, explain_class, parse, told
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.io.malloc import keep_freed_memory
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.weights import WeightsCache
from lit_cls.runs.presets import PRESETS, Preset
from lit_cls.runs.resuming import Origin, asks_for_other_data, changed_options, check_going_on, settings_of
from lit_cls.runs.run import Keep, Run
from lit_cls.training.callbacks import quiet_lightning
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import (
    DATA_KEY,
    LAST,
    PREVIOUS,
    RUN_KEY,
    check_same_network,
    newest_checkpoint,
)
from lit_cls.training.module import ClassifierModule
from lit_cls.training.precision import auto_precision
from lit_cls.training.trainer import ClassifierTrainer

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "checkpoints",
    "devices": 1,  # more devices make larger steps: a choice, not a default
    "max_epochs": 5,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # what it would find, the checks before training do
    "enable_model_summary": False,  # EpochLog prints its own
    "logger": False,  # the run folder's metrics.csv is always written; this adds others
    "use_distributed_sampler": False,  # it repeats rows (Lightning-AI/pytorch-lightning#7929)
}
_FIT_ALONE = {"--keep", "--save_every_n_steps"}

_DESCRIPTIONS = {
    "fit": "Trains a classifier, keeps the best checkpoint, tests it, and writes a report.",
    "validate": "Evaluates a checkpoint on the validation split, and writes a report.",
    "test": "Evaluates a checkpoint on the test split, and writes a report.",
}


def train(words: list[str]) -> None:
    """Runs one of the verbs.

    Args:
        words: the verb, then its options.

    Raises:
        UserError: a mistake in the options, the files or the data.
    """
    check_class_paths(words[0], words[1:])
    with only_allowed_classes(words[0]):
        TrainCommand(words).start()


class TrainCommand(LightningCLI):
    """LightningCLI with a new folder for each run, and checkpoints that bring their own settings.

    Made, everything is checked that can be without data; nothing runs before `start`.

    Args:
        words: the verb, then its options.
        resumed: the folder of a run that fit goes on with.
        console: where the run prints; standard output by default.
        comparisons: whether the run's report fits baselines and draws plots.
        weights_cache: shared with other runs of the same process; by default the weights file is read anew.

    Raises:
        UserError: a mistake in the options or the files.
    """

    trainer: Trainer
    model: ClassifierModule
    datamodule: ClassificationData

    def __init__(
        self,
        words: list[str],
        resumed: Path | None = None,
        *,
        console: Console | None = None,
        comparisons: bool = True,
        weights_cache: WeightsCache | None = None,
    ) -> None:
        self.resumed = resumed
        self._weights_cache = weights_cache
        self._console = console
        self._comparisons = comparisons
        self.notes: list[str] = []
        quiet_lightning()
        with told(words[0]):
            super().__init__(
                ClassifierModule,
                ClassificationData,
                trainer_class=ClassifierTrainer,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=123,
                parser_kwargs={
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    **{verb: {"exit_on_error": False, "allow_abbrev": False} for verb in self.subcommands()},
                },
                auto_configure_optimizers=False,
                save_config_callback=None,  # Run writes config.yaml, in one step and once
                load_from_checkpoint_support=False,
                args=words,
            )

    def _run_subcommand(self, subcommand: str) -> None:
        # LightningCLI calls this from its constructor.
        pass

    def start(self) -> None:
        """Runs the verb, from its own seed whatever ran before it in this process.

        Raises:
            UserError: a mistake in the options, the files or the data.
        """
        assert self.subcommand is not None
        keep_freed_memory()
        with told(self.subcommand):
            seed_everything(self.config[self.subcommand].seed_everything, workers=True, verbose=False)
            try:
                super()._run_subcommand(self.subcommand)
            except UserError:
                raise
            except Exception as error:
                if (named := self._named_class(error)) is None:
                    raise
                raise UserError(f"{named}, which the configuration names, does not work here: {error}") from error

    def _named_class(self, error: Exception) -> str | None:
        """The class of the configuration in whose own code an error arose."""
        trainer = self._get(self.config_init, "trainer")
        options = ("callbacks", "logger", "profiler", "plugins")
        named = {id(thing) for option in options for thing in _as_list(trainer[option]) if hasattr(thing, "__dict__")}
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if id(frame.f_locals.get("self")) in named:
                return type(frame.f_locals["self"]).__name__
        return None

    def settings(self) -> dict[str, Any]:
        """Every value that the run uses, as its config.yaml has it."""
        assert self.subcommand is not None
        read: dict[str, Any] = yaml.safe_load(self._settings_text())
        return read

    def _settings_text(self) -> str:
        assert self.subcommand is not None
        written: str = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        return written

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, and which arguments of the Trainer's methods are no options of ours."""
        ours = {"datamodule", "dataloaders", "model", "train_dataloaders", "val_dataloaders"}
        fixed = {"verbose", "return_predictions", "weights_only"}  # nothing is ever unpickled but tensors
        return dict.fromkeys(("fit", "validate", "test"), ours | fixed)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of the model, the data and the trainer."""
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Folder of this run below trainer.default_root_dir; by default the name of the --config file.",
        )
        parser.add_argument(
            "--preset",
            type=Preset | None,
            default=None,
            help="Settings to start from, below --config and options: those of the published table.",
        )
        parser.link_arguments(
            "model.size", "data.context_length", compute_fn=lambda size: BACKBONES[size].config.context_length
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # LightningCLI has no public place for an argument of one verb alone.
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.description = _DESCRIPTIONS[subcommand]
        # validate and test take them from a run's config.yaml, and have no use for them.
        ours = subcommand == "fit"
        keep = "Which checkpoint is tested: that of the lowest val_loss, or the last (no selection)."
        every = "Save last.ckpt after every so many optimizer steps, beside after every epoch."
        hidden = {"default": SUPPRESS, "help": SUPPRESS}
        for name, kind, shown in (
            ("keep", Keep, {"default": "best", "help": keep}),
            ("save_every_n_steps", PositiveInt | None, {"default": None, "help": every}),
        ):
            parser.add_argument(f"--{name}", type=kind, **(shown if ours else hidden))
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; settings of a preset, then of a checkpoint, take the place of the defaults.

        Options and files of --config stand above both.
        """
        self.words = cast("list[str]", args)
        if self.words[0] in ("validate", "test") and (
            typed := {word.split("=")[0] for word in self.words} & _FIT_ALONE
        ):
            raise UserError(f"{min(typed)} is an option of fit: {self.words[0]} trains nothing")
        self.config = parse(parser, [word for word in self.words if not word.startswith("--print_config")])
        verb = self.config.subcommand
        if preset := self.config[verb].preset:
            ours = self._subcommand_parsers[verb]
            known = {name: value for name, value in PRESETS[preset].items() if name != "keep" or verb == "fit"}
            ours.set_defaults(known)
        self.config = parse(parser, self.words)
        config = self.config[verb]
        self._check_groups(config)
        self._check_nulls(verb, config)
        self.root = Path(os.path.expanduser(config.trainer.default_root_dir))
        self.run_name = self._resolve_run_name(config)
        if self.resumed is not None:
            self.root, self.run_name = self.resumed.parent.parent, self.resumed.parent.name
        self.checkpoint_path: Path | None = None
        if found := self._resolve_checkpoint(verb, config):
            self.checkpoint_path, self.checkpoint = found
        if self.checkpoint_path is not None and self.resumed is None:
            other = asks_for_other_data(config.data, [PRESETS[preset].get("data.split")] if preset else [])
            theirs = settings_of(self.checkpoint, other, training=verb == "fit")
            defaults = {action.dest: action.default for action in self._subcommand_parsers[verb]._actions}
            # The parser takes defaults as they are: what is no option, or no number where one was, is left out.
            usable = {
                name: theirs[name] for name in theirs if name in defaults and _is_like(theirs[name], defaults[name])
            }
            self._subcommand_parsers[verb].set_defaults(usable)
            self.config = parse(parser, self.words)
            self.config[verb].ckpt_path = str(self.checkpoint_path.absolute())
        if verb != "fit":
            for name in _FIT_ALONE:
                self.config[verb].pop(name.removeprefix("--"), None)
        if self.resumed is None:
            self.config[verb].run_name = self.run_name

    @staticmethod
    def _check_groups(config: Namespace) -> None:
        for group in ("trainer", "model", "data"):
            if not isinstance(config.get(group), Namespace):
                raise UserError(f"{group} is {config.get(group)!r} in the configuration, not a group of options")
        if config.trainer.default_root_dir is None:
            raise UserError("trainer.default_root_dir is null: give the folder of all runs, for example checkpoints")
        if type(config.seed_everything) is not int or not 0 <= config.seed_everything < 2**32:
            raise UserError(f"seed_everything {config.seed_everything} is not between 0 and {2**32 - 1}")

    def _check_nulls(self, verb: str, config: Namespace) -> None:
        """jsonargparse takes null in a file for any option, whatever its type."""
        hints = {action.dest: getattr(action, "_typehint", None) for action in self._subcommand_parsers[verb]._actions}
        for name, hint in hints.items():
            if hint is not None and type(None) not in get_args(hint) and config.get(name, "") is None:
                raise UserError(f"{name} is null in the configuration: leave it out for the default, or give a value")

    def _make_repeatable(self, config: Namespace) -> None:
        """What is saved as config.yaml must mean the same from another folder, and later."""
        if config.data.path:
            config.data.path = _absolute(config.data.path)
        if not isinstance(config.data.split, str):
            config.data.split = tuple(_absolute(p) if isinstance(p, str) else p for p in config.data.split)
        if config.model.cache_dir is not None:
            config.model.cache_dir = _absolute(config.model.cache_dir)
        if config.model.weights not in ("pretrained", "random"):
            config.model.weights = _absolute(config.model.weights)

    def _parse_ckpt_path(self) -> None:
        # LightningCLI would let the checkpoint's hyperparameters override the command line in silence.
        pass

    @staticmethod
    def _resolve_run_name(config: Namespace) -> str:
        name = config.run_name or (Path(str(config.config[0])).stem if config.config and config.config[0] else "fit")
        if name in (".", "..") or set(name) & set("/\\\0"):
            raise UserError(f"run_name {name!r} is not a plain folder name")
        return name

    def _resolve_checkpoint(self, verb: str, config: Namespace) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint that was asked for, and its content."""
        given = config.ckpt_path
        # best.ckpt alone, in a run that began with --ckpt_path, is the one that came from there.
        saved = self.resumed is not None and any((self.resumed / name).exists() for name in (LAST, PREVIOUS))
        if self.resumed is not None and (saved or given is None):
            newest = newest_checkpoint(self.resumed, self.notes.append)
            if newest is not None:
                return newest
        if given is None and verb == "fit":
            return None
        path = None if given is None else str(given)
        return find_trained(path, self.root, self.run_name, self.words, self.notes.append)

    def before_instantiate_classes(self) -> None:
        """Refuses what the device cannot do; Lightning would switch to another precision."""
        trainer = self.config[self.config.subcommand].trainer
        if trainer.precision == "auto":
            trainer.precision, why = auto_precision(trainer.accelerator)
            self.notes.append(f"precision {trainer.precision} (trainer.precision auto): {why}")
        check_device(trainer.precision, trainer.accelerator)
        try:
            self._parser(self.config.subcommand).dump(self.config[self.config.subcommand])
        except ValueError as error:  # a class with an argument that YAML cannot spell
            raise UserError(f"the configuration cannot be saved: {explain_class(str(error))}") from error

    def instantiate_classes(self) -> None:
        """Makes the model, the data, the trainer and whatever classes the configuration names."""
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except ValueError as error:  # jsonargparse's, when a named class refuses its arguments
            raise UserError(f"the configuration cannot be carried out: {explain_class(str(error))}") from error
        if self._weights_cache is not None:
            self.model.share_weights(self._weights_cache)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what every run has: our checkpoints, our lines, a bar on a terminal."""
        config = self._get(self.config_init, "trainer")
        keep: Keep | None = self._get(self.config_init, "keep")
        if self.subcommand != "fit" or config["enable_checkpointing"] is False or config["fast_dev_run"]:
            keep = None
        if self.resumed is not None and config["fast_dev_run"]:
            raise UserError("trainer.fast_dev_run trains nothing that a run could go on with: leave it out")
        callbacks = _as_list(config["callbacks"])
        check_trainer(config, callbacks, compares_losses=keep == "best")
        self._make_repeatable(self.config[self.subcommand])
        self.run = Run(
            self.root,
            self.run_name,
            self.words,
            keep,
            self._settings_text(),
            self.settings(),
            self._get(self.config_init, "save_every_n_steps"),
            self.resumed,
            self._console,
            self._comparisons,
        )
        show_bar = self.run.console.is_terminal and config["enable_progress_bar"] is not False
        kwargs = {
            **kwargs,
            "callbacks": [*callbacks, *self.run.callbacks(show_bar)],
            "plugins": [*_as_list(config["plugins"]), AtomicCheckpointIO()],
            "enable_progress_bar": show_bar,
            # Of Lightning's own there are none, unless the configuration names some.
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        }
        try:
            return super().instantiate_trainer(**kwargs)
        except Exception as error:  # which kind, depends on which option Lightning trips over
            raise UserError(f"the trainer cannot be set up like this: {error}") from error

    def fit(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Trains, then tests the kept checkpoint and shows what came out."""
        self.run.fit(self.trainer, model, self.datamodule, self._origin(), self.notes)

    def validate(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Accuracy of a checkpoint on the validation split."""
        self._evaluate("validation")

    def test(self, model: ClassifierModule, **kwargs: Any) -> None:
        """Accuracy of a checkpoint on the test split."""
        self._evaluate("test")

    def _origin(self) -> Origin | None:
        """The state that the training goes on from, when the options allow it."""
        if self.checkpoint_path is None:
            return None
        self._check_checkpoint()
        if other := self.datamodule.other_splits(self.checkpoint[DATA_KEY]):
            raise UserError(
                f"the {', '.join(other)} split is not the one that {self.checkpoint_path} was trained with: a training "
                "goes on with its own texts. Leave the options of data out, or train anew without --ckpt_path"
            )
        trainer = self.trainer
        order = self.datamodule.order(trainer)
        limits = (trainer.max_epochs, trainer.max_steps) if self.resumed is None else (None, -1)
        check_going_on(self.checkpoint_path, self.checkpoint, order, *limits)
        self.notes += [f"note: {line}" for line in changed_options(self.settings(), self.checkpoint)]
        state = self.checkpoint[RUN_KEY]
        del self.checkpoint  # see Origin
        return Origin(self.checkpoint_path, state["place"], state["metrics_rows"], state["best_loss"])

    def _evaluate(self, split: SplitName) -> None:
        for note in self.notes:
            self.run.log(note)
        assert self.checkpoint_path is not None, "without a checkpoint, parse_arguments has refused"
        self._check_checkpoint()
        self.run.evaluate(self.trainer, self.model, self.datamodule, split, self.checkpoint_path)

    def _check_checkpoint(self) -> None:
        check_same_network(self.checkpoint, self.model.settings, self.datamodule.label_names)
        self.datamodule.load_state_dict(self.checkpoint[DATA_KEY])


def _is_like(value: Any, default: Any) -> bool:
    return value is None or not isinstance(default, int | float) or isinstance(value, int | float)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute())
