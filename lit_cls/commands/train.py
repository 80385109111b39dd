"""The subcommands fit, validate and test, through LightningCLI."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console

from lit_cls.commands import train_config
from lit_cls.commands.checkpoint_options import locate_checkpoint
from lit_cls.commands.config_safety import only_allowed_classes
from lit_cls.commands.parser import user_path
from lit_cls.commands.parser_errors import describe_class_error, parse, user_errors
from lit_cls.commands.train_config import FIT_ONLY, as_list
from lit_cls.data.datamodule import ClassificationData
from lit_cls.data.splits import SplitName
from lit_cls.errors import UserError
from lit_cls.io.malloc import keep_freed_memory
from lit_cls.io.terminal import stdout_console
from lit_cls.model.backbones import BACKBONES
from lit_cls.model.weights import WeightsCache
from lit_cls.runs.presets import PRESETS, Preset
from lit_cls.runs.resuming import ResumeState, changed_options, check_resumable, names_other_data, saved_settings
from lit_cls.runs.run import Keep, Run
from lit_cls.training.callbacks import quiet_lightning
from lit_cls.training.checkpoint_io import AtomicCheckpointIO
from lit_cls.training.checkpoints import DATA_KEY, LAST, PREVIOUS, RUN_KEY, check_same_network, newest_checkpoint
from lit_cls.training.module import ClassifierModule
from lit_cls.training.precision import auto_precision
from lit_cls.training.trainer import ClassifierTrainer

_DESCRIPTIONS = {
    "fit": "Trains a classifier, keeps the best checkpoint, tests it, and writes a report.",
    "validate": "Evaluates a checkpoint on the validation split, and writes a report.",
    "test": "Evaluates a checkpoint on the test split, and writes a report.",
}


def train(words: list[str]) -> None:
    """Runs fit, validate or test, the first of `words`, with the options behind it."""
    with only_allowed_classes(words[0]):
        TrainCommand(words).start()


class TrainCommand(LightningCLI):
    """LightningCLI with a new folder for each run, and checkpoints that bring their own settings.

    The constructor checks everything that can be checked without data; nothing runs before `start`. `words` are the
    subcommand and its options, `command` what was typed where that differs. Without a `weights_cache`, shared with
    other runs of the process, the weights file is read anew. The other arguments are as in `Run`.
    """

    trainer: Trainer
    model: ClassifierModule
    datamodule: ClassificationData

    def __init__(
        self,
        words: list[str],
        resumed: Path | None = None,
        *,
        command: list[str] | None = None,
        console: Console | None = None,
        comparisons: bool = True,
        weights_cache: WeightsCache | None = None,
    ) -> None:
        self.words = words
        self.resumed = resumed
        self._command = command or words
        self._weights_cache = weights_cache
        self._console = console or stdout_console()
        self._comparisons = comparisons
        self.notes: list[str] = []
        quiet_lightning()
        strict = {"exit_on_error": False, "allow_abbrev": False}
        with user_errors(words[0]):
            super().__init__(
                ClassifierModule,
                ClassificationData,
                trainer_class=ClassifierTrainer,
                trainer_defaults=train_config.TRAINER_DEFAULTS,
                seed_everything_default=123,
                parser_kwargs={**strict, words[0]: strict},
                auto_configure_optimizers=False,
                save_config_callback=None,  # Run writes config.yaml
                load_from_checkpoint_support=False,
                args=words,
            )

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing: LightningCLI calls this from its constructor; here, `start` does."""

    def start(self) -> None:
        """Trains or evaluates, from its own seed whatever ran before it in this process."""
        keep_freed_memory()
        with user_errors(self.words[0]):
            seed_everything(self.config[self.words[0]].seed_everything, workers=True, verbose=False)
            try:
                if self.subcommand == "fit":
                    self.run.fit(self.trainer, self.model, self.datamodule, self._resume_state(), self.notes)
                else:
                    assert self.checkpoint_path is not None, "without a checkpoint, parse_arguments has refused"
                    for note in self.notes:
                        self.run.log(note)
                    self._check_checkpoint()
                    split: SplitName = "validation" if self.subcommand == "validate" else "test"
                    self.run.evaluate(self.trainer, self.model, self.datamodule, split, self.checkpoint_path)
            except Exception as error:
                name = train_config.class_that_raised(error, self._get(self.config_init, "trainer"))
                if name is None or isinstance(error, UserError):
                    raise
                raise UserError(f"{name}, which the configuration names, does not work here: {error}") from error

    def settings(self) -> dict[str, Any]:
        """Every value that the run uses, as in its config.yaml."""
        return yaml.safe_load(self._settings_text())

    def _settings_text(self) -> str:
        return self._parser(self.words[0]).dump(self.config[self.words[0]], skip_unset=False)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that runs (parsers for all take 0.2 s more), with the Trainer's arguments that are not options."""
        ours = {"datamodule", "dataloaders", "model", "train_dataloaders", "val_dataloaders"}
        return {self.words[0]: ours | {"verbose", "weights_only"}}  # only tensors are unpickled, always

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of the model, the data and the trainer."""
        name = "Folder of this run below trainer.default_root_dir; by default the name of the --config file."
        parser.add_argument("--run_name", type=str | None, default=None, help=name)
        preset = "Settings to start from, below --config and options: those of the published table."
        parser.add_argument("--preset", type=Preset | None, default=None, help=preset)
        for option, of_model in (
            ("data.context_length", lambda size: BACKBONES[size].config.context_length),
            ("data.tokenizer", lambda size: BACKBONES[size].family.tokenizer),
        ):
            parser.link_arguments("model.size", option, compute_fn=of_model)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # LightningCLI has no public place for an option of one subcommand.
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.description = _DESCRIPTIONS[subcommand]
        train_config.add_fit_options(parser, visible=subcommand == "fit")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; a preset, then a checkpoint replace the defaults; options and files of --config override both."""
        if self.words[0] in ("validate", "test") and (typed := {word.split("=")[0] for word in self.words} & FIT_ONLY):
            raise UserError(f"{min(typed)} is an option of fit: {self.words[0]} trains nothing")
        words = [word for word in self.words if not word.startswith("--print_config")]
        self.config = parse(parser, words)
        name = self.config.subcommand
        own_parser = self._subcommand_parsers[name]
        if preset := self.config[name].preset:
            own_parser.set_defaults({k: v for k, v in PRESETS[preset].items() if k != "keep" or name == "fit"})
        if preset or words != self.words:
            self.config = parse(parser, self.words)
        config = self.config[name]
        train_config.check_values(own_parser, config)
        self.root = user_path(config.trainer.default_root_dir)
        self.run_name = train_config.run_name_of(config)
        if self.resumed is not None:
            self.root, self.run_name = self.resumed.parent.parent, self.resumed.parent.name
        self.checkpoint_path: Path | None = None
        if found := self._resolve_checkpoint(name, config.ckpt_path):
            self.checkpoint_path, self.checkpoint = found
        if self.checkpoint_path is not None and self.resumed is None:
            other = names_other_data(config.data, [PRESETS[preset].get("data.split")] if preset else [])
            saved = saved_settings(self.checkpoint, other, training=name == "fit")
            train_config.set_usable_defaults(own_parser, saved)
            self.config = parse(parser, self.words)
            self.config[name].ckpt_path = str(self.checkpoint_path.absolute())
        if name != "fit":
            for option in FIT_ONLY:
                self.config[name].pop(option.removeprefix("--"), None)
        if self.resumed is None:
            self.config[name].run_name = self.run_name

    def _parse_ckpt_path(self) -> None:
        """Does nothing: LightningCLI would let a checkpoint's hyperparameters override the command line."""

    def _resolve_checkpoint(self, subcommand: str, given: Any) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint that was asked for, and its content."""
        # best.ckpt alone, in a run that began with --ckpt_path, is the one that came from there.
        saved = self.resumed is not None and any((self.resumed / name).exists() for name in (LAST, PREVIOUS))
        if self.resumed is not None and (saved or given is None):
            newest = newest_checkpoint(self.resumed, self.notes.append)
            if newest is not None:
                return newest
        if given is None and subcommand == "fit":
            return None
        return locate_checkpoint(given and str(given), self.root, self.run_name, self.words, self.notes.append)

    def before_instantiate_classes(self) -> None:
        """Refuses a precision that the device lacks: Lightning would switch to another one."""
        trainer = self.config[self.config.subcommand].trainer
        if trainer.precision == "auto":
            trainer.precision, why = auto_precision(trainer.accelerator)
            self.notes.append(f"precision {trainer.precision} (trainer.precision auto): {why}")
        train_config.check_device(trainer.precision, trainer.accelerator)
        try:
            self._settings_text()
        except ValueError as error:  # a class with an argument that YAML cannot spell
            raise UserError(f"the configuration cannot be saved: {describe_class_error(str(error))}") from error

    def instantiate_classes(self) -> None:
        """Creates the model, the data, the trainer and the classes that the configuration names."""
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except ValueError as error:  # jsonargparse's, when a named class refuses its arguments
            raise UserError(f"the configuration cannot be instantiated: {describe_class_error(str(error))}") from error
        if self._weights_cache is not None:
            self.model.share_weights(self._weights_cache)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the callbacks and the checkpoint writer of every run."""
        config = self._get(self.config_init, "trainer")
        keep: Keep | None = self._get(self.config_init, "keep")
        if self.subcommand != "fit" or config["enable_checkpointing"] is False or config["fast_dev_run"]:
            keep = None
        if self.resumed is not None and config["fast_dev_run"]:
            raise UserError("trainer.fast_dev_run trains nothing that could be resumed: leave it out")
        callbacks = as_list(config["callbacks"])
        train_config.check_trainer(config, callbacks, compares_losses=keep == "best")
        train_config.make_repeatable(self.config[self.subcommand])
        self.run = Run(
            self.root,
            self.run_name,
            self._command,
            keep,
            self._settings_text(),
            self._get(self.config_init, "save_every_n_steps"),
            self.resumed,
            self._console,
            self._comparisons,
        )
        show_bar = self.run.console.is_terminal and config["enable_progress_bar"] is not False
        kwargs = {
            **kwargs,
            "callbacks": [*callbacks, *self.run.callbacks(show_bar)],
            "plugins": [*as_list(config["plugins"]), AtomicCheckpointIO()],
            "enable_progress_bar": show_bar,
            # Lightning's own checkpoint callbacks are left out, unless the configuration names some.
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        }
        try:
            return super().instantiate_trainer(**kwargs)
        except Exception as error:  # of a type that depends on the option
            raise UserError(f"the trainer cannot be created: {error}") from error

    def _resume_state(self) -> ResumeState | None:
        """The state that the training resumes from, if the options allow it; None for a new one."""
        if self.checkpoint_path is None:
            return None
        self._check_checkpoint()
        if other := self.datamodule.other_splits(self.checkpoint[DATA_KEY]):
            raise UserError(
                f"the {', '.join(other)} split is not the one that {self.checkpoint_path} was trained with: a training "
                "is resumed with its own texts. Leave the options of data out, or train anew without --ckpt_path"
            )
        order = self.datamodule.order(self.trainer)
        limits = (self.trainer.max_epochs, self.trainer.max_steps) if self.resumed is None else (None, -1)
        check_resumable(self.checkpoint_path, self.checkpoint, order, *limits)
        self.notes += [f"note: {line}" for line in changed_options(self.settings(), self.checkpoint)]
        state = self.checkpoint[RUN_KEY]
        del self.checkpoint  # see ResumeState
        return ResumeState(self.checkpoint_path, state["place"], state["metrics_rows"], state["best_loss"])

    def _check_checkpoint(self) -> None:
        check_same_network(self.checkpoint, self.model.settings, self.datamodule.label_names)
        self.datamodule.load_state_dict(self.checkpoint[DATA_KEY])
