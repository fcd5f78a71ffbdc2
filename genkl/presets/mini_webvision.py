"""Mini WebVision 1.0: 65,944 web images of the first 50 classes, none of them verified.

Command
    ``genkl run --preset mini-webvision --data-root FOLDER`` runs the whole method;
    ``torchrun --nproc-per-node 8 -m genkl run ...`` on eight GPUs. ``genkl identify FILE --preset
    mini-webvision``, or ``genkl.MINI_WEBVISION.identify(pred_probs)``, flags the NC instances in
    saved predictions, shape (N, 50).

Expected time
    Identification takes about a second for a million predictions on two cores. Full training was
    not measured here. An estimate: 300 epochs over 65,944 images are 19.8 million images a
    model, or 10 hours at an assumed 560 images a second (ResNet-50, 299 pixels).

Number to expect
    78.99 % top-1 and 92.54 % top-5 accuracy on the WebVision validation set: reported by the
    paper, not reproduced here. The standard errors on 2,500 images are 0.81 and 0.53 points, and
    the script chooses the epoch of each maximum on these very images. Others report 78.76 %
    (DSOS), 79.01 % (PLS) and 79.42 % (C2D) top-1.
"""

from __future__ import annotations

from genkl.presets.paper import PaperPreset, Recipe
from genkl.published import Published

MINI_WEBVISION = PaperPreset(
    dataset="mini WebVision 1.0",
    num_classes=50,
    alpha=0.9,
    beta=0.015,
    sigma=0.05,
    num_vectors=20,
    seeds=(42,),
    omega=(10.0, 32.0, 4.0),
    batch_size=32,
    mixup_alpha=3.0,
    first_predictor="models after 10 epochs on the noisy set, published as averaged predictions",
    pretrain=None,
    train=Recipe(
        optimizer="sgd",
        learning_rate=1e-2,
        epochs=300,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="cosine",
    ),
    finetune=Recipe(optimizer="adam", learning_rate=5e-7, epochs=50, weight_decay=1e-3),
    network="ResNet-50",
    initial_weights="random",
    clean_set="none verified: whose given label currently has a probability of 0.5 or more",
    clean_threshold=0.5,
    train_transforms=(("resize", 320), ("random resized crop", 299), ("random flip", None)),
    test_transforms=(("resize", 320), ("centre crop", 299)),
    test_sets=(("WebVision validation", 2_500), ("ILSVRC12 validation", 2_500)),
    reported=(("top-1 accuracy", 78.99), ("top-5 accuracy", 92.54)),
    departures=Published.MINI_WEBVISION,
)
"""Settings of the paper for mini WebVision 1.0, k = 50. Images are normalised as for ImageNet."""
