"""What a judge was calibrated on, as a place among texts."""

import numpy as np
import pytest

from snapjudge.errors import BundleInvalid
from snapjudge.prove.reference import FEWEST, fit_reference, read_reference


def spread_over(rng, count, size=48):
    """Texts that vary in a few directions much more than in the others."""
    scales = np.concatenate([np.full(6, 3.0), np.full(size - 6, 0.2)])
    return (rng.normal(size=(count, size)) * scales + 1.0).astype(np.float32)


def test_about_one_in_a_hundred_is_too_far_and_what_leaves_the_usual_directions_is():
    rng = np.random.default_rng(0)
    reference = fit_reference(spread_over(rng, 4000))
    same = [reference.strange(one) for one in spread_over(rng, 4000)]
    assert 0.003 < np.mean(same) < 0.02
    far = spread_over(rng, 200)
    far[:, 20] += 3.0  # nothing in the usual directions, much in another
    assert np.mean([reference.strange(one) for one in far]) > 0.95
    assert all(reference.distance(one) > 0 for one in far)


def test_a_reference_is_the_same_when_it_is_read_again(tmp_path):
    rng = np.random.default_rng(1)
    reference = fit_reference(spread_over(rng, 500))
    (tmp_path / "r.safetensors").write_bytes(reference.dump())
    again = read_reference(tmp_path / "r.safetensors")
    for one in spread_over(rng, 20):
        assert again.distance(one) == pytest.approx(reference.distance(one), rel=1e-6)
    assert again.most == reference.most


def test_too_few_texts_tell_nothing_and_a_broken_file_is_named(tmp_path):
    assert fit_reference(spread_over(np.random.default_rng(2), FEWEST - 1)) is None
    for raw in (b"", b"\x00" * 8, b"nothing of the kind, but long enough", fit_reference(spread_over(np.random.default_rng(3), 300)).dump()[:200]):
        (tmp_path / "r.safetensors").write_bytes(raw)
        with pytest.raises(BundleInvalid, match=r"r\.safetensors"):
            read_reference(tmp_path / "r.safetensors")
    with pytest.raises(BundleInvalid):
        read_reference(tmp_path / "none")
