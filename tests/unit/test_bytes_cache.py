"""The cache bounded in bytes."""

from relay.core.bytes_cache import OVERHEAD, BytesCache


def test_what_was_not_used_longest_goes_first() -> None:
    cache: BytesCache[str, int] = BytesCache(2 * (100 + OVERHEAD))
    cache.put("a", 1, 100)
    cache.put("b", 2, 100)
    assert cache.get("a") == 1
    cache.put("c", 3, 100)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert cache.used == cache.most


def test_a_peek_is_no_use() -> None:
    cache: BytesCache[str, int] = BytesCache(2 * (100 + OVERHEAD))
    cache.put("a", 1, 100)
    cache.put("b", 2, 100)
    assert cache.peek("a") == 1
    cache.put("c", 3, 100)
    assert cache.peek("a") is None


def test_a_value_that_is_too_large_takes_no_other_with_it() -> None:
    cache: BytesCache[str, int] = BytesCache(1000)
    cache.put("a", 1, 100)
    cache.put("b", 2, 1000)
    assert (cache.get("a"), cache.get("b")) == (1, None)


def test_a_value_put_again_counts_once() -> None:
    cache: BytesCache[str, int] = BytesCache(10_000)
    cache.put("a", 1, 100)
    cache.put("a", 2, 300)
    assert (cache.get("a"), cache.used, len(cache)) == (2, 300 + OVERHEAD, 1)
    cache.drop("a")
    cache.drop("a")
    assert (cache.used, len(cache)) == (0, 0)


def test_a_cache_of_nothing_holds_nothing() -> None:
    cache: BytesCache[str, int] = BytesCache(0)
    cache.put("a", 1, 0)
    assert cache.get("a") is None
