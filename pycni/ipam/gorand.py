"""Go's `math/rand` (v1) source and `big.Int.Rand`, as far as Calico's block order needs them.

The generator is the additive lagged Fibonacci y(n) = y(n-607) + y(n-273) mod 2^64.  Go seeds it by
a linear congruential generator, mixed with a table that is nothing but the state of the same
generator 7.8e12 steps after another seeding.  The table is therefore computed, not copied: the
generator is linear, so a jump of N steps is x^N modulo its characteristic polynomial.  That costs
a tenth of a second, once per process and only where a new block has to be chosen.

Pure: knows nothing of addresses, hosts or blocks.
"""

from collections.abc import Iterator
from functools import lru_cache

_LENGTH = 607
_TAP = 273
_WORD_BITS = 64
_WORD_MASK = (1 << _WORD_BITS) - 1
_WARM_UP = 20
_TABLE_STEPS = 7_800_000_000_000
_TABLE_SEED = 1

# The congruential generator x -> 48271 x mod 2^31-1 (Park and Miller's revised "minimal standard").
_LCG_FACTOR = 48271
_LCG_MODULUS = (1 << 31) - 1
_LCG_INSTEAD_OF_ZERO = 89482311

# A polynomial over Z/2^64 lives in one Python integer, a coefficient per slot, so that the
# interpreter's own big multiplication does the work.  A coefficient of a product is below
# 607 * 2^128 < 2^138; the slot is rounded up to whole bytes and leaves room for the sums below.
_SLOT_BYTES = 18
_SLOT_BITS = 8 * _SLOT_BYTES


def _lcg(seed: int) -> Iterator[int]:
    x = seed % _LCG_MODULUS or _LCG_INSTEAD_OF_ZERO
    while True:
        x = x * _LCG_FACTOR % _LCG_MODULUS
        yield x


def _seed_words(seed: int, *, shift: int) -> list[int]:
    """Return 607 words, each of three consecutive numbers, `shift` bits apart."""
    numbers = _lcg(seed)
    for _ in range(_WARM_UP):
        next(numbers)
    words = []
    for _ in range(_LENGTH):
        high, middle, low = next(numbers), next(numbers), next(numbers)
        words.append((high << 2 * shift ^ middle << shift ^ low) & _WORD_MASK)
    return words


def _in_order_of_time(words: list[int]) -> list[int]:
    """Turn the generator's array (or such a list back) into y(-607) … y(-1).

    Step n writes at index 333-n mod 607; the mapping is its own inverse.
    """
    return [words[(_LENGTH - _TAP - 1 - n) % _LENGTH] for n in range(_LENGTH)]


def _pack(words: list[int]) -> int:
    return int.from_bytes(
        b"".join(word.to_bytes(_SLOT_BYTES, "little") for word in words), "little"
    )


def _unpack(packed: int, *, count: int) -> list[int]:
    raw = packed.to_bytes(_SLOT_BYTES * (2 * count + 2), "little")
    return [
        int.from_bytes(raw[at : at + _WORD_BITS // 8], "little")
        for at in range(0, _SLOT_BYTES * count, _SLOT_BYTES)
    ]


def _reduce(polynomial: int, *, mask: int) -> int:
    """Bring a product below degree 607 by x^607 = x^334 + 1, coefficients below 2^64."""
    polynomial &= mask
    while high := polynomial >> _LENGTH * _SLOT_BITS:
        low = polynomial ^ high << _LENGTH * _SLOT_BITS
        polynomial = low + high + (high << (_LENGTH - _TAP) * _SLOT_BITS)
    return polynomial & mask


def _jump_polynomial(steps: int) -> int:
    """Return x^steps modulo the characteristic polynomial."""
    mask = _pack([_WORD_MASK] * (2 * _LENGTH))
    power = 1
    for bit in f"{steps:b}":
        power = _reduce(power * power << (_SLOT_BITS if bit == "1" else 0), mask=mask)
    return power


@lru_cache(maxsize=1)
def mixing_table() -> tuple[int, ...]:
    """Return the 607 words that Go calls `rngCooked`."""
    history = _in_order_of_time(_seed_words(_TABLE_SEED, shift=10))
    for n in range(_LENGTH):
        history.append((history[n] + history[n + _LENGTH - _TAP]) & _WORD_MASK)
    # Word t after the jump is the sum of c(j) * y(j+t): a convolution with the reversed history.
    product = _jump_polynomial(_TABLE_STEPS) * _pack(history[::-1])
    sums = _unpack(product, count=2 * _LENGTH)
    after = [sums[2 * _LENGTH - 1 - t] for t in range(_LENGTH)]
    # The array is addressed by step, and the number of steps is no multiple of 607.
    offset = _TABLE_STEPS % _LENGTH
    return tuple(_in_order_of_time(after[-offset:] + after[:-offset]))


class Source:
    """A stream of random numbers, as Go's `rand.New(rand.NewSource(seed))` gives them."""

    __slots__ = ("_history",)

    def __init__(self, seed: int) -> None:
        mixed = (
            word ^ cooked
            for word, cooked in zip(_seed_words(seed, shift=20), mixing_table(), strict=True)
        )
        self._history = _in_order_of_time(list(mixed))

    def uint64(self) -> int:
        """Return the next number of 64 bits."""
        history = self._history
        word = (history[-_LENGTH] + history[-_TAP]) & _WORD_MASK
        history.append(word)
        return word

    def uint32(self) -> int:
        """Return the next number of 32 bits: bits 31 to 62 of the next word."""
        return self.uint64() >> 31 & 0xFFFF_FFFF

    def below(self, limit: int) -> int:
        """Return a number in [0, limit), drawn as `big.Int.Rand` does on a 64-bit machine.

        Whole words of two draws each, the low half first; the most significant word is cut to the
        limit's length; the lot is thrown away and drawn again while it is not below the limit.
        """
        mask = (1 << limit.bit_length()) - 1
        words = -(-limit.bit_length() // _WORD_BITS)
        while True:
            number = 0
            for at in range(2 * words):
                number |= self.uint32() << 32 * at
            if number & mask < limit:
                return number & mask
