"""Clothing1M: a million clothes from shopping sites in 14 classes, with 47,570 verified labels.

Command
    ``genkl run --preset clothing1m --data-root FOLDER`` runs the whole method;
    ``torchrun --nproc-per-node 8 -m genkl run ...`` on eight GPUs. ``genkl identify FILE --preset
    clothing1m``, or ``genkl.CLOTHING1M.identify(pred_probs)``, flags the NC instances in saved
    predictions, shape (N, 14).

Expected time
    Identification takes about a second for a million predictions on two cores. Full training was
    not measured here. An estimate: 20 epochs over a million noisy images, each batch beside one of
    clean images, are 40 million images a model, or 11 hours at an assumed 1,000 images a second
    (ResNet-50, 224 pixels); iteration 0 trains five predictors and one round three models.

Number to expect
    81.34 % test accuracy: reported by the paper, not reproduced here. The standard error of an
    accuracy on 10,526 images is 0.38 points. With the same verified labels others report 80.27 %
    for plain cross-entropy and 81.16 % for Deep Self-Learning (2019).
"""

from __future__ import annotations

from genkl.presets.paper import PaperPreset, Recipe
from genkl.published import Published

CLOTHING1M = PaperPreset(
    dataset="Clothing1M",
    num_classes=14,
    alpha=1.05,
    beta=0.03,
    sigma=0.05,
    num_vectors=20,
    seeds=(0, 1, 2),
    omega=(1.0, 32.0, 1.0),
    batch_size=32,
    mixup_alpha=0.5,
    first_predictor="five models trained on the clean set",
    pretrain=Recipe(
        optimizer="sgd",
        learning_rate=1e-2,
        epochs=30,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        schedule="plateau",
        patience=4,
    ),
    train=Recipe(
        optimizer="sgd",
        learning_rate=1e-3,
        epochs=20,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        schedule="plateau",
        patience=3,
    ),
    finetune=Recipe(optimizer="adam", learning_rate=5e-7, epochs=25, weight_decay=1e-3),
    network="ResNet-50",
    initial_weights="ImageNet",
    clean_set="the verified training images (clean_train_key_list.txt)",
    train_transforms=(("resize", 256), ("random crop", 224), ("random flip", None)),
    test_transforms=(("resize", 256), ("centre crop", 224)),
    test_sets=(("clean_test", 10_526),),
    reported=(("test accuracy", 81.34),),
    departures=Published.CLOTHING1M,
)
"""Settings of the paper for Clothing1M, k = 14. Images are normalised as for ImageNet."""
