"""The fast evaluation: the published votes bit for bit, for any shape, type and thread count."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import published
from genkl import generalized_kl, identify_nc, nc_score, uniform_like_vectors
from genkl.rule.evaluation import (
    BLOCK_ENTRIES,
    SampledRule,
    _evaluate,
    block_rows,
    evaluate,
    strip_rows,
)

PRESETS = {  # k, alpha, beta, sigma, n, seed
    "Clothing1M": (14, 1.05, 0.03, 0.05, 20, 0),
    "Food101N": (101, 1.1, 0.008, 0.0, 20, 0),
    "mini WebVision": (50, 0.9, 0.015, 0.05, 20, 42),
}


def mixed_predictions(k, count, seed, dtype=np.float64):
    """Confident, torn and flat predictions, one-peak ones, exactly uniform and one-hot ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, k)) * rng.choice([0.05, 0.5, 1, 2, 4], (count, 1))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    peaks = rng.uniform(1 / k, 1, count // 4)[:, None]
    probs[-len(peaks) :] = (1 - peaks) / (k - 1)
    probs[-len(peaks) :, :1] = peaks
    probs[: count // 20] = 1 / k
    probs[count // 20 : count // 10] = np.eye(k)[rng.integers(0, k, count // 10 - count // 20)]
    return probs.astype(dtype)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_presets_give_the_published_votes(name, dtype, seed):
    k, alpha, beta, sigma, n, _ = PRESETS[name]
    vectors = uniform_like_vectors(k, n, sigma, seed)
    probs = mixed_predictions(k, 20_000, seed, dtype)
    expected = published.identify_nc(probs, alpha, beta, vectors)
    assert np.array_equal(identify_nc(probs, alpha, beta, vectors), expected)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 3, 5, 7, 8, 9, 16, 17, 50, 100, 127, 128, 129, 257, 512, 1000])
def test_any_number_of_classes_gives_the_published_votes(k, dtype):
    for seed, (share, alpha) in enumerate([(0.3, 1.0), (0.9, 0.9), (0.0, 0.5), (0.6, 1.05)]):
        vectors = uniform_like_vectors(k, 20, 0.05, seed)
        probs = mixed_predictions(k, 600, seed, dtype)
        expected = published.identify_nc(probs, alpha, share / k, vectors)
        assert np.array_equal(identify_nc(probs, alpha, share / k, vectors), expected)


@given(
    k=st.integers(2, 1000),
    seed=st.integers(0, 2**32 - 1),
    alpha=st.floats(0.2, 2),
    share=st.floats(0, 0.99),
    n=st.integers(1, 30),
    sigma=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_drawn_settings_give_the_published_votes(k, seed, alpha, share, n, sigma, dtype):
    vectors = uniform_like_vectors(k, n, sigma, seed)
    probs = mixed_predictions(k, 60, seed, dtype)
    expected = published.identify_nc(probs, alpha, share / k, vectors)
    assert np.array_equal(identify_nc(probs, alpha, share / k, vectors), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [2, 4, 10, 14, 101])
def test_exact_ties_are_decided_as_published(k, dtype):
    """sigma = 0, alpha = 1, uniform q: D is 0 but for rounding, and the scripts' order decides."""
    vectors = uniform_like_vectors(k, 20, 0.0)
    probs = np.full((9, k), 1 / k, dtype)
    expected = published.identify_nc(probs, 1.0, 0.5 / k, vectors)
    assert np.array_equal(identify_nc(probs, 1.0, 0.5 / k, vectors), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_on_an_instance_s_own_score_is_decided_as_published(dtype):
    """Every alpha is some row's critical alpha, or its neighbour: nothing but near ties."""
    vectors = uniform_like_vectors(14)
    probs = mixed_predictions(14, 300, 5, dtype)
    scores = np.unique(nc_score(probs, 0.03, vectors))
    for score in scores[scores > 0][::10]:
        for alpha in (score, np.nextafter(score, 0), score * (1 + 1e-7), score * (1 - 1e-7)):
            expected = published.identify_nc(probs, alpha, 0.03, vectors)
            assert np.array_equal(identify_nc(probs, alpha, 0.03, vectors), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entries_on_the_threshold_count_in_the_precision_they_are_stored_in(dtype):
    tau = 1 / 50 - 0.015
    probs = np.full((3, 50), (1 - 2 * tau) / 48)
    probs[:, :2] = [[tau, tau], [np.nextafter(dtype(tau), dtype(0)), tau], [tau, tau * 1.001]]
    probs = probs.astype(dtype)
    vectors = uniform_like_vectors(50)
    scores = nc_score(probs, 0.015, vectors)
    assert scores[1] < scores[0]  # one entry less counts
    for score in scores:
        for alpha in (score * 0.999, score * 1.001):
            expected = published.identify_nc(probs, alpha, 0.015, vectors)
            assert np.array_equal(identify_nc(probs, alpha, 0.015, vectors), expected)


def test_single_and_double_precision_differ_only_within_rounding():
    vectors = uniform_like_vectors(14)
    exact = mixed_predictions(14, 50_000, 1)
    rounded = exact.astype(np.float32)
    differ = identify_nc(rounded, 0.6, 0.03, vectors) != identify_nc(exact, 0.6, 0.03, vectors)
    tau = 1 / 14 - 0.03
    near_tau = (np.abs(exact - tau) <= 1e-6 * tau).any(axis=1)
    near_alpha = np.abs(nc_score(exact, 0.03, vectors) / 0.6 - 1) <= 1e-5
    assert not (differ & ~near_tau & ~near_alpha).any()
    # The same numbers in double precision are the same predictions.
    widened = rounded.astype(np.float64)
    assert np.allclose(
        nc_score(rounded, 0.03, vectors), nc_score(widened, 0.03, vectors), rtol=1e-12
    )


def test_scores_are_the_ratio_of_the_definition():
    vectors = uniform_like_vectors(9, 7)
    probs = mixed_predictions(9, 400, 2)
    entropies = -generalized_kl(vectors, np.eye(9)[0], 1.0, 0.05)
    costs = generalized_kl(vectors[:, None], probs, 1.0, 0.05) + entropies[:, None]
    expected = (costs / entropies[:, None]).max(axis=0)
    assert np.allclose(nc_score(probs, 0.05, vectors), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("permutation_invariant", [False, True])
@pytest.mark.parametrize("k", [3, 14, 700])
def test_the_number_of_threads_changes_no_bit(k, permutation_invariant):
    probs = mixed_predictions(k, 3 * strip_rows(k) + 5, 3)
    vectors = uniform_like_vectors(k)
    options = {"permutation_invariant": permutation_invariant}
    one = nc_score(probs, 0.2 / k, vectors, num_threads=1, **options)
    for threads in (2, 3, 8, None):
        other = nc_score(probs, 0.2 / k, vectors, num_threads=threads, **options)
        assert one.tobytes() == other.tobytes()
    votes = {
        identify_nc(probs, 0.9, 0.2 / k, vectors, num_threads=t, **options).tobytes()
        for t in (1, 2, 5)
    }
    assert len(votes) == 1


def test_the_blas_library_s_threads_change_no_bit(tmp_path):
    code = """
import hashlib, numpy as np, genkl
q = np.random.default_rng(0).dirichlet(np.full(14, .5), 200_000)
p = genkl.uniform_like_vectors(14)
print(hashlib.sha256(genkl.nc_score(q, .03, p).tobytes()).hexdigest(),
      hashlib.sha256(genkl.identify_nc(q, .8, .03, p).tobytes()).hexdigest())
"""
    seen = set()
    for threads in ("1", "2", "4"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PATH": "/usr/bin"},
        )  # fmt: skip
        seen.add(done.stdout)
    assert len(seen) == 1


def test_two_callers_at_once_get_their_own_results():
    vectors = uniform_like_vectors(14)
    inputs = [mixed_predictions(14, 100_000, seed) for seed in range(2)]
    alone = [nc_score(probs, 0.03, vectors) for probs in inputs]
    together = [None, None]

    def work(i):
        together[i] = nc_score(inputs[i], 0.03, vectors)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("row", [0, 17, 4_000, 99_999])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full(14, np.nan), "contains NaN"),
        (np.eye(14)[0] * 2 - np.eye(14)[1], "negative entry"),
        (np.full(14, 0.2), "sums to 2.8"),
        (np.full(14, np.inf), "sums to inf"),
    ],
)
def test_the_first_bad_row_is_named_from_any_block(row, bad, message):
    probs = np.full((100_000, 14), 1 / 14)
    probs[row] = probs[-1] = bad
    for threads in (1, 2):
        with pytest.raises(ValueError, match=f"{message}.* in row {row};"):
            nc_score(probs, 0.03, uniform_like_vectors(14), num_threads=threads)


def test_rows_may_be_strided_mapped_half_or_whole_numbers(tmp_path):
    vectors = uniform_like_vectors(6)
    probs = mixed_predictions(6, 30_000, 4)
    expected = nc_score(probs, 0.05, vectors)
    assert np.array_equal(nc_score(np.asfortranarray(probs), 0.05, vectors), expected)
    assert np.allclose(nc_score(probs[::2], 0.05, vectors), expected[::2], rtol=1e-14)
    np.save(tmp_path / "probs.npy", probs)
    mapped = np.load(tmp_path / "probs.npy", mmap_mode="r")
    assert np.array_equal(nc_score(mapped, 0.05, vectors), expected)
    assert np.allclose(nc_score(mapped[100:], 0.05, vectors), expected[100:], rtol=1e-14)
    half = probs.astype(np.float16)
    assert np.array_equal(
        nc_score(half, 0.05, vectors), nc_score(half.astype(np.float32), 0.05, vectors)
    )
    assert nc_score(np.eye(6, dtype=int), 0.05, vectors).tolist() == [0] * 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_precision(dtype):
    vectors = torch.from_numpy(uniform_like_vectors(5))
    probs = torch.from_numpy(mixed_predictions(5, 500, 6))
    if dtype == torch.bfloat16:  # too coarse for most sums to be 1
        probs = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625], [0.25, 0.25, 0.25, 0.125, 0.125]])
    probs = probs.to(dtype).requires_grad_()
    scores = nc_score(probs, 0.05, vectors)
    assert scores.dtype == torch.float64
    assert not scores.requires_grad
    wide = probs.detach().to(torch.float32 if dtype.itemsize < 4 else dtype).numpy()
    assert np.array_equal(scores.numpy(), nc_score(wide, 0.05, vectors.numpy()))
    assert identify_nc(probs, 0.8, 0.05, vectors).dtype == torch.bool


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("permutation_invariant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_gives_the_same_votes(dtype, permutation_invariant):
    vectors = uniform_like_vectors(14)
    probs = torch.from_numpy(mixed_predictions(14, 100_000, 7)).to(dtype)
    options = {"permutation_invariant": permutation_invariant}
    on_gpu = identify_nc(probs.cuda(), 0.8, 0.03, vectors, **options)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), identify_nc(probs, 0.8, 0.03, vectors, **options))
    scores = nc_score(probs.cuda(), 0.03, vectors, **options).cpu()
    assert torch.allclose(scores, nc_score(probs, 0.03, vectors, **options), rtol=1e-12)


def test_blocks_fit_a_cache_and_are_whole_lines():
    for k in (2, 14, 101, 1000, 100_000):
        assert block_rows(k, BLOCK_ENTRIES) % 16 == 0
        assert block_rows(k, BLOCK_ENTRIES) * k <= max(1 << 18, 16 * k)


@pytest.mark.parametrize("permutation_invariant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 14, 101])
def test_tensors_take_the_way_of_a_gpu(k, dtype, permutation_invariant):
    """What `evaluate` does on a CUDA device, here with tensors on the CPU."""
    rule = SampledRule.of(uniform_like_vectors(k), 0.4 / k, k, permutation_invariant)
    probs = torch.from_numpy(mixed_predictions(k, 2_000, 7)).to(dtype)
    numbers = probs.numpy()
    found = _evaluate(probs, rule, None, None, False, 0)
    assert found.dtype == torch.float64
    assert np.allclose(found.numpy(), evaluate(numbers, rule), rtol=1e-13)
    scores = np.unique(found.numpy())
    for alpha in (0.8, 1.0, *scores[scores > 0][::200]):  # some exactly on a row's own score
        votes = _evaluate(probs, rule, alpha, None, False, 0)
        assert votes.dtype == torch.bool
        assert np.array_equal(votes.numpy(), evaluate(numbers, rule, alpha))


def test_the_way_of_a_gpu_names_the_first_bad_row_and_knows_vectors_without_entropy(monkeypatch):
    monkeypatch.setattr("genkl.rule.evaluation.GPU_BLOCK_ENTRIES", 64)  # blocks of 16 rows
    probs = torch.full((500, 4), 0.25)
    sure = SampledRule.of(np.eye(4)[:1], 0.1, 4, False)
    assert torch.isinf(_evaluate(probs, sure, None, None, False, 0)).all()
    assert _evaluate(probs, sure, 5.0, None, False, 0).all()
    rule = SampledRule.of(uniform_like_vectors(4), 0.1, 4, False)
    probs[[471, 480], 0] = float("nan")
    for alpha in (None, 0.9):
        with pytest.raises(ValueError, match="NaN in row 1471;"):
            _evaluate(probs, rule, alpha, None, False, 1000)


def test_changes_to_a_private_mapping_count(tmp_path):
    probs = np.full((50_000, 14), 1 / 14)
    np.save(tmp_path / "probs.npy", probs)
    private = np.load(tmp_path / "probs.npy", mmap_mode="c")
    private[40_000] = np.eye(14)[3]
    assert not identify_nc(private, 0.9, 0.03, uniform_like_vectors(14))[40_000]
    assert identify_nc(private, 0.9, 0.03, uniform_like_vectors(14)).sum() == 49_999


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_memory_mapped_file_does_not_stay_resident(tmp_path):
    np.save(tmp_path / "probs.npy", np.full((1_500_000, 14), 1 / 14, np.float32))  # 84 MB
    code = """
import sys, numpy as np, genkl
def peak():
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
mapped, vectors = np.load(sys.argv[1], mmap_mode="r"), genkl.uniform_like_vectors(14)
genkl.identify_nc(mapped[:1000], 0.9, 0.03, vectors)
before = peak()
assert genkl.identify_nc(mapped, 0.9, 0.03, vectors, num_threads=1).all()
print(peak() - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "probs.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40
