"""The content cache: longest prefixes, least recently used out first, never one in use, bytes kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjudge.engine.cache import BLOCK, ContentCache

LAYERS = [(2, 3, 3), (1, 2, 5)]
BLOCK_BYTES = sum(heads * (key + value) for heads, key, value in LAYERS) * BLOCK * 4


def cache(blocks=8, *, prefix=True, longest=BLOCK):
    return ContentCache(LAYERS, prefix=prefix, budget=blocks * BLOCK_BYTES, longest=longest, dtype=torch.float32, device=torch.device("cpu"))


def states(ids, start=0):
    """Keys and values that tell which tokens they were computed from: a function of the whole prefix."""
    totals = torch.tensor([float(sum((place + 1) * token for place, token in enumerate(ids[: end + 1])) % 9973) for end in range(start, len(ids))])
    return [
        (totals[None, :, None].expand(heads, -1, key) + layer, totals[None, :, None].expand(heads, -1, value) - layer)
        for layer, (heads, key, value) in enumerate(LAYERS)
    ]


def fill(kept, ids, space=None):
    """Compute a content as the engine does; returns how many tokens were at hand."""
    lease = kept.hold(space, ids)
    assert lease is not None
    found = lease.done
    if found < len(ids):
        lease.write(states(ids, found))
    check(lease, ids)
    lease.release()
    return found


def check(lease, ids):
    for layer, (keys, values) in enumerate(states(ids)):
        found_keys, found_values = lease.layers(len(ids))[layer]
        assert torch.equal(found_keys, keys)
        assert torch.equal(found_values, values)


def ids(count, first=1):
    return tuple(range(first, first + count))


def test_a_content_seen_before_is_not_computed_again():
    kept = cache()
    assert fill(kept, ids(40)) == 0
    assert fill(kept, ids(40)) == 40
    assert kept.stats.tokens_asked == 80
    assert kept.stats.hit_rate == 0.5


@pytest.mark.parametrize("shared", [1, 15, 16, 17, 33, 40])
def test_the_longest_common_prefix_is_reused_token_by_token(shared):
    kept = cache()
    fill(kept, ids(40))
    assert fill(kept, ids(shared) + (999,) * 5) == shared


def test_a_content_that_grows_computes_only_what_is_new():
    kept = cache()
    whole = ids(100)
    done = 0
    for end in range(7, 100, 7):
        assert fill(kept, whole[:end]) == done
        done = end


def test_contents_read_in_both_directions_are_reused_whole_or_not_at_all():
    kept = cache(16, prefix=False)
    fill(kept, ids(40))
    assert fill(kept, ids(39)) == 0
    assert fill(kept, ids(41)) == 0
    assert fill(kept, ids(40)) == 40


def test_what_one_adapter_computed_is_not_another_s():
    kept = cache()
    fill(kept, ids(20), space=1)
    assert fill(kept, ids(20), space=2) == 0
    assert fill(kept, ids(20), space=1) == 20
    kept.drop(1)
    assert kept.match(1, ids(20))[0] == 0
    assert kept.match(2, ids(20))[0] == 20


def test_the_least_recently_used_goes_first():
    kept = cache(4)
    for first in (100, 200, 300, 400):
        fill(kept, ids(16, first))
    fill(kept, ids(16, 100))
    fill(kept, ids(16, 500))
    assert kept.match(None, ids(16, 100))[0] == 16
    assert kept.match(None, ids(16, 200))[0] == 0
    assert kept.stats.blocks_evicted == 1


def test_what_is_in_use_is_never_put_out():
    kept = cache(4)
    held = kept.hold(None, ids(48))
    held.write(states(ids(48)))
    assert kept.hold(None, ids(32, 500)) is None
    fill(kept, ids(16, 600))
    check(held, ids(48))
    held.release()
    assert kept.hold(None, ids(32, 500)) is not None


def test_a_beginning_outlives_what_follows_it():
    kept = cache(4)
    fill(kept, ids(32))
    fill(kept, ids(16) + ids(16, 500))
    fill(kept, ids(32, 900))
    assert kept.match(None, ids(32))[0] == 16


def test_changes_name_the_nodes_whose_matches_may_differ():
    kept = cache()
    _, node = kept.match(None, ids(40))
    kept.changed.clear()
    fill(kept, ids(40))
    assert node in kept.changed


def test_half_a_content_is_kept_when_its_request_ends_early():
    kept = cache()
    lease = kept.hold(None, ids(40))
    lease.write([(keys[:, :20], values[:, :20]) for keys, values in states(ids(40))])
    lease.release()
    assert fill(kept, ids(40)) == 20


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(0, 2), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_a_content_reads_as_computed_and_no_block_is_lost(drawn):
    kept = cache(12, longest=70)
    held = []
    for family, length, branch, keep in drawn:
        content = tuple(1000 * family + place if place < 20 * (branch + 1) else 5000 * branch + place for place in range(length))
        lease = kept.hold(None, content)
        if lease is None:
            assert held
            held.pop(0)[0].release()
            continue
        if lease.done < length:
            lease.write(states(content, lease.done))
        check(lease, content)
        if keep:
            held.append((lease, content))
        else:
            lease.release()
        for one, own in held:
            check(one, own)
        assert kept.stats.bytes_used <= kept.stats.bytes_budget
    for one, _ in held:
        one.release()
    everything = kept.hold(None, tuple(range(100_000, 100_000 + 12 * BLOCK)))
    assert everything is not None, "a block was lost"
