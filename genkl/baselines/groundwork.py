"""Groundwork of methods: predictions and neighbours known before training, made when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from genkl.baselines.neighbors import nearest_neighbors
from genkl.data import NoisyDataset
from genkl.data.splitting import divide
from genkl.engine import Engine, as_engine
from genkl.features import Backbone
from genkl.learn import Examples, GenKLConfig, RunOptions
from genkl.learn.iteration import Setup, pretrain_members
from genkl.learn.run import ready_to_learn
from genkl.networks import ModelFactory, default_model

FOLDS = 5

Made = TypeVar("Made")


class Groundwork:
    """Predictions and neighbours that methods start from, each made once, when it is asked for.

    Methods that are run with the same data, seed and pre-training share what they have in common:
    build one with `prepare` and pass it to every `run_method`. It changes nothing but the time.

    Args:
        setup: of a run.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._made: dict[str, object] = {}

    @staticmethod
    def prepare(
        dataset: NoisyDataset,
        config: GenKLConfig,
        *,
        seed: int = 0,
        make_model: ModelFactory = default_model,
        backbone: Backbone | str | None = "auto",
        engine: Engine | str = "auto",
    ) -> Groundwork:
        """Groundwork to be shared by runs with the same arguments; nothing is computed yet.

        Args:
            dataset, config, seed, make_model, backbone, engine: see `run_method`.

        Returns:
            Groundwork whose ``dataset`` holds what the models see, such as features.
        """
        dataset.require("validation")
        options = RunOptions(make_model=make_model, backbone=backbone, engine=engine)
        engine = as_engine(engine)
        dataset = ready_to_learn(dataset, config, options, engine)
        return Groundwork(Setup(dataset, config, seed, make_model, engine))

    @property
    def dataset(self) -> NoisyDataset:
        """What the models see."""
        return self.setup.dataset

    @property
    def is_clean_empty(self) -> bool:
        """Whether nothing is verified."""
        return len(self.dataset.clean) == 0

    def check_fits(
        self, dataset: NoisyDataset, config: GenKLConfig, seed: int, make_model: ModelFactory
    ) -> None:
        """Refuse a run that this was not made for; arguments as of `run_method`.

        Raises:
            ValueError: another seed, other pre-training, other networks, or other data.
        """
        ours = self.setup
        pairs = {
            "seed": (ours.seed, seed),
            "config.pretrain": (ours.config.pretrain, config.pretrain),
            "config.first_ensemble": (ours.config.first_ensemble, config.first_ensemble),
            "make_model": (ours.make_model, make_model),
        }
        for name, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise ValueError(
                    f"groundwork was prepared with {name} = {mine!r}, and now it is {theirs!r}; "
                    "prepare one for each, see Groundwork.prepare"
                )
        for name in ("clean", "noisy", "validation"):
            mine, theirs = getattr(self.dataset, name), getattr(dataset, name)
            if mine.inputs is not theirs.inputs or not mine.labels.equal(theirs.labels):
                raise ValueError(
                    f"groundwork was prepared for another {name} split; pass groundwork.dataset "
                    "as the data set"
                )

    def predictor(self) -> list[nn.Module]:
        """GenKL's first predictor: models trained on the clean split alone."""
        return self._once(
            "predictor",
            lambda: self._train(self.setup.config.first_ensemble, self.setup.clean, "pretrain"),
        )

    def views(self) -> np.ndarray:
        """Two predictions for every noisy instance, by different models, shape (2, N, k).

        The even and the odd models of `predictor`; where nothing is verified, two rounds of
        `held_out_probs`.

        Raises:
            ValueError: a single model.
        """
        return self._once("views", self._views)

    def _views(self) -> np.ndarray:
        if self.is_clean_empty:
            return np.stack([self.held_out_probs(0), self.held_out_probs(1)])
        models = self.predictor()
        if len(models) < 2:
            raise ValueError(
                "config.first_ensemble is 1, and two predictions are compared; use 2 or more"
            )
        predict, noisy = self.setup.predict, self.dataset.noisy
        return np.stack([predict(models[which::2], noisy) for which in (0, 1)])

    def noisy_probs(self) -> np.ndarray:
        """Averaged predictions for the noisy split by models that did not learn from it, (N, k)."""
        if self.is_clean_empty:
            return self.held_out_probs()
        return self._once("noisy", lambda: self.setup.predict(self.predictor(), self.dataset.noisy))

    def held_out_probs(self, repeat: int = 0) -> np.ndarray:
        """Predictions of the given label by models that saw only others, shape (N, k).

        The noisy split is divided into five parts, with a share of every label in each; a model
        learns the labels of four, and of the clean split, and predicts the fifth.

        Args:
            repeat: number of the division.
        """
        return self._once(f"held out {repeat}", lambda: self._held_out_probs(repeat))

    def _held_out_probs(self, repeat: int) -> np.ndarray:
        setup, noisy = self.setup, self.dataset.noisy
        parts = divide(noisy.labels.numpy(), FOLDS, seed=setup.seed_of(0, repeat, 3))
        given, probs = setup.as_given, np.empty((len(noisy), self.dataset.num_classes))
        models = self._made[f"models {repeat}"] = []
        for part in np.unique(parts):
            held_out = parts == part
            learned = setup.clean + given.take(np.flatnonzero(~held_out))
            models += self._train(1, learned, f"division-{repeat}-part-{part}")
            probs[held_out] = setup.predict(models[-1:], noisy.take(np.flatnonzero(held_out)))
        return probs

    def voices(self) -> tuple[np.ndarray, np.ndarray]:
        """Predictions by models that did not learn an instance's own label, as they come.

        The voices are `predictor`, where it learned verified labels, and `held_out_probs`, whose
        models are asked one by one about the validation split, too.

        Returns:
            Of the noisy split, shape (V, N, k), and of the validation split, as often as there are
            models, (V, F m, k).
        """
        predict, known = self.setup.predict, self.dataset.validation
        noisy = [self.held_out_probs()]
        models = self._made["models 0"]
        asked = [np.concatenate([predict([model], known) for model in models])]
        if not self.is_clean_empty:
            noisy.append(self.noisy_probs())
            asked.append(np.tile(predict(self.predictor(), known), (len(models), 1)))
        return np.stack(noisy), np.stack(asked)

    def given_label_probs(self) -> np.ndarray:
        """What models that learned the noisy split's labels predict for the clean split, (m, k)."""
        return self._once("given", self._given_label_probs)

    def _given_label_probs(self) -> np.ndarray:
        count = self.setup.config.first_ensemble
        models = self._train(count, self.setup.as_given, "given-labels")
        return self.setup.predict(models, self.dataset.clean)

    def neighbors(self, count: int) -> np.ndarray:
        """Nearest neighbours of the noisy instances, shape (N, count), in clean and noisy together.

        Args:
            count: of each; fewer are read off more that are known.

        Raises:
            ValueError: images on disk, or more neighbours than instances.
        """
        known = self._made.get("neighbors")
        if known is None or known.shape[1] < count:
            known = self._made["neighbors"] = self._neighbors(count)
        return known[:, :count]

    def _neighbors(self, count: int) -> np.ndarray:
        everything: Examples = self.setup.clean + self.setup.as_given
        if not isinstance(everything.inputs, Tensor):
            raise ValueError(
                f"the inputs of {self.dataset.name} are images on disk, and neighbours are looked "
                "for among features; pass a backbone, or genkl.featurize(dataset) first"
            )
        return nearest_neighbors(
            self.dataset.noisy.inputs,
            everything.inputs,
            count,
            start=len(self.dataset.clean),
            device=str(self.setup.engine.device),
        )

    def _train(self, count: int, examples: Examples, name: str) -> list[nn.Module]:
        self.setup.recorder.bar.expect(count * self.setup.config.pretrain.steps)
        return pretrain_members(self.setup, count, examples=examples, name=name)

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
