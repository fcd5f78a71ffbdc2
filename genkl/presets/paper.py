"""Presets of the paper: the numbers in its scripts, and what can be done with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from genkl.checks import Array, check_beta, check_positive
from genkl.data import NoisyDataset
from genkl.data.transforms import Transforms
from genkl.features import finetunable
from genkl.learn import GenKLConfig, Phase
from genkl.networks import ModelFactory
from genkl.published import Published
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import identify_nc

PAPER_WEIGHTS = "IMAGENET1K_V1"
"""The ImageNet weights that torchvision had when the paper was written."""
WARM_UP = 10
"""Epochs on all given labels where no label is verified."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one phase of the paper trains: a `Phase` counted in epochs, as the scripts do.

    Attributes:
        epochs: passes over the phase's data.
        learning_rate: at the start.
        optimizer: "sgd" or "adam".
        momentum: of SGD.
        nesterov: whether SGD uses Nesterov momentum.
        weight_decay: L2 penalty.
        schedule: "constant", "cosine" to 0 over the epochs, or "plateau".
        patience: of "plateau", in epochs without a lower validation loss.

    Raises:
        ValueError: a number out of range, or an unknown optimiser or schedule.
    """

    epochs: int
    learning_rate: float
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    patience: int | None = None

    def __post_init__(self) -> None:
        check_positive("epochs", self.epochs, "; leave the recipe out (None) to skip a phase")
        if (self.schedule == "plateau") != (self.patience is not None):
            raise ValueError(
                f"patience is {self.patience} with schedule {self.schedule!r}; state it with "
                "'plateau' and with no other"
            )
        self.phase(batch_size=1, instances=1)  # refuses the rest

    def phase(self, batch_size: int, instances: int) -> Phase:
        """The phase for so many instances, with one evaluation an epoch."""
        an_epoch = max(1, instances // batch_size)
        settings = {name: value for name, value in vars(self).items() if value is not None}
        steps = settings.pop("epochs") * an_epoch
        return Phase(steps=steps, batch_size=batch_size, eval_every=an_epoch, **settings)


@dataclass(frozen=True, kw_only=True)
class PaperPreset:
    """Every setting of the paper for one data set, as its published scripts have it.

    Attributes:
        dataset: name of the data set.
        num_classes: k.
        alpha: threshold of the NC vote.
        beta: in [0, 1/k); entries of a prediction below 1/k - beta are ignored.
        sigma: spread of the uniform-like vectors.
        num_vectors: n, how many of them.
        seeds: those that the published commands use; the first is the default.
        omega: weights of the clean, non-NC and NC losses, before division by the batch size.
        batch_size: rows per step.
        mixup_alpha: of the mixup weight's Beta distribution; 0 is off.
        first_predictor: where the predictions of iteration 0 come from.
        pretrain: how the first predictor is trained; None where only its weights were published.
        train: with the three-term loss.
        finetune: on the clean set, afterwards.
        network: name of the architecture.
        initial_weights: "ImageNet", or "random".
        clean_set: which instances count as clean.
        clean_threshold: where there is no verified set, an instance counts as clean in a step if
            the network's current probability of its given label reaches this.
        train_transforms: of the images in training.
        test_transforms: of the images in prediction and testing.
        test_sets: name and number of images of each.
        first_ensemble: models averaged for iteration 0.
        ensemble: models averaged in later iterations.
        reported: accuracies in percent that the paper reports, by name; not reproduced here.
        departures: where the data set's script departs from the paper.

    Raises:
        ValueError: a setting out of range; the message names it and the remedy.
    """

    dataset: str
    num_classes: int
    alpha: float
    beta: float
    sigma: float
    num_vectors: int
    seeds: tuple[int, ...]
    omega: tuple[float, float, float]
    batch_size: int
    mixup_alpha: float
    first_predictor: str
    pretrain: Recipe | None
    train: Recipe
    finetune: Recipe
    network: str
    initial_weights: str
    clean_set: str
    clean_threshold: float | None = None
    train_transforms: Transforms
    test_transforms: Transforms
    test_sets: tuple[tuple[str, int], ...]
    first_ensemble: int = 5
    ensemble: int = 3
    reported: tuple[tuple[str, float], ...]
    departures: Published

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; a preset needs at least 2")
        check_beta(self.beta, self.num_classes)
        check_positive("batch_size", self.batch_size)
        if not self.seeds or any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds is {self.seeds}; state at least one seed, 0 or greater")
        for name, percent in self.reported:
            if not 0 < percent <= 100:
                raise ValueError(f"reported {name!r} is {percent}; state accuracies in percent")
        self._config(noisy=1, clean=1)  # refuses the rest

    @property
    def tau(self) -> float:
        r"""The truncation threshold :math:`\tau = 1/k - \beta`."""
        return 1 / self.num_classes - self.beta

    @property
    def weights(self) -> tuple[float, float, float]:
        r"""Multipliers of the three mean losses, :math:`\omega_i / \text{batch size}`."""
        clean, non_nc, nc = (w / self.batch_size for w in self.omega)
        return clean, non_nc, nc

    def uniform_like(self, seed: int | None = None) -> Array:
        """The vectors P that the script compares predictions with.

        Args:
            seed: of the vectors; None is the first published one.

        Returns:
            Shape (num_vectors, num_classes), float64.

        Source: equation :eq:`eq-uniform-like`.
        """
        chosen = self.seeds[0] if seed is None else seed
        return uniform_like_vectors(self.num_classes, self.num_vectors, self.sigma, chosen)

    def identify(
        self,
        pred_probs: Array,
        *,
        seed: int | None = None,
        permutation_invariant: bool = False,
    ) -> Array:
        """Flag the NC instances in saved predictions, with this preset's settings.

        Args:
            pred_probs: averaged predictions, shape (N, num_classes).
            seed: of the uniform-like vectors; None is the first published one.
            permutation_invariant: use every permutation of every vector, see `identify_nc`; then
                the names of the classes don't matter, and the seed hardly.

        Returns:
            Boolean mask, shape (N,); the same kind of array as pred_probs.

        Raises:
            ValueError: pred_probs not probability vectors, or of another number of classes.

        Source: equation :eq:`eq-vote`.

        Example:
            >>> CLOTHING1M.identify(np.array([[0.45] + [0.55 / 13] * 13, [0.9] + [0.1 / 13] * 13]))
            array([ True, False])
        """
        shape = tuple(getattr(pred_probs, "shape", ()))
        if len(shape) == 2 and shape[1] != self.num_classes:
            raise ValueError(
                f"pred_probs has shape {shape}; {self.dataset} has {self.num_classes} classes: "
                "pass predictions for those, or use another preset"
            )
        return identify_nc(
            pred_probs,
            self.alpha,
            self.beta,
            self.uniform_like(seed),
            permutation_invariant=permutation_invariant,
        )

    def config(self, dataset: NoisyDataset, *, max_rounds: int = 3) -> GenKLConfig:
        """These settings for a data set of any size: epochs become steps.

        As in the scripts, a step of training sees ``batch_size`` noisy instances and, where there
        is a clean set, as many clean ones beside them; an epoch is one pass over the noisy ones,
        and the validation split is looked at after each. Where only the first predictor's weights
        were published (Food-101N), it is pre-trained on the clean set as the model is trained;
        where nothing is verified (mini WebVision), on all given labels for `WARM_UP` epochs.

        Args:
            dataset: gives the numbers of instances.
            max_rounds: at most so many; the paper needs one to three.

        Returns:
            The configuration for `run_genkl`.

        Raises:
            ValueError: a data set with another number of classes.
        """
        if dataset.num_classes != self.num_classes:
            raise ValueError(
                f"{dataset.name} has {dataset.num_classes} classes and this preset has "
                f"num_classes = {self.num_classes}; use dataclasses.replace to change it"
            )
        noisy = len(dataset.noisy)
        clean = len(dataset.clean) if self.clean_threshold is None else noisy
        return self._config(noisy, clean, max_rounds)

    def _config(self, noisy: int, clean: int, max_rounds: int = 1) -> GenKLConfig:
        """For so many noisy instances and as many to pre-train and fine-tune on."""
        train = self.train.phase(self.batch_size, noisy)
        if self.clean_threshold is None:
            pretrain = self.pretrain or self.train
            train = replace(train, clean_batch_size=self.batch_size)
        else:
            pretrain = replace(self.train, epochs=WARM_UP)
        return GenKLConfig(
            alpha=self.alpha,
            beta=self.beta,
            sigma=self.sigma,
            num_vectors=self.num_vectors,
            vector_seed=self.seeds[0],
            omega=self.omega,
            mixup_alpha=self.mixup_alpha,
            first_ensemble=self.first_ensemble,
            ensemble=self.ensemble,
            max_rounds=max_rounds,
            pretrain=pretrain.phase(self.batch_size, clean),
            train=train,
            finetune=self.finetune.phase(self.batch_size, clean),
            clean_threshold=self.clean_threshold,
            train_transforms=self.train_transforms,
            test_transforms=self.test_transforms,
        )

    def model_factory(
        self, network: str | None = None, weights: str | os.PathLike[str] | None = "preset"
    ) -> ModelFactory:
        """The preset's network, or another, with a new classifier; see `finetunable`.

        Args:
            network: any name of torchvision or timm; None is the preset's.
            weights: "preset" starts as the paper did; or as for `finetunable`.

        Raises:
            ValueError: an unknown network or unusable weights.
            ConnectionError: weights that can't be downloaded now; says where to get them.
        """
        if weights == "preset":
            weights = None if self.initial_weights == "random" else "default"
            if network is None and weights is not None:
                weights = PAPER_WEIGHTS
        return finetunable(network or self.network, weights)
