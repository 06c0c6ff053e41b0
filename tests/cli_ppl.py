#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval ppl from outside: what a line holds, by tokens, words and bytes; windows that overlap."""
import math

from clitest import *


def ppl(*args, **how):
    return atom("eval", "ppl", TINY, "-q", *args, **how)


@test
def a_line():
    r = ppl("--window", 64, "--json", text()).expect(0).json()
    assert list(r) == ["file", "tokens", "ppl", "nll", "window", "stride", "windows", "dropped", "bytes", "words",
                       "bits_per_byte", "byte_ppl", "word_ppl", "seconds"], r
    total = r["nll"] * r["tokens"]
    for key, want in (("ppl", math.exp(r["nll"])), ("byte_ppl", math.exp(total / r["bytes"])),
                      ("word_ppl", math.exp(total / r["words"])), ("bits_per_byte", total / r["bytes"] / math.log(2))):
        assert abs(r[key] / want - 1) < 1e-9, (key, want, r)
    assert r["tokens"] == 63 * r["windows"] and r["stride"] == 64, r
    data = read(text())
    assert 0.9 < r["bytes"] / len(data) <= 1 and 0.9 < r["words"] / len(data.split()) <= 1, r


@test
def windows_that_overlap():
    apart = ppl("--window", 64, "--json", text()).expect(0).json()
    same = ppl("--window", 64, "--stride", 64, "--json", text()).expect(0).json()
    for key in apart:
        assert key == "seconds" or apart[key] == same[key], (key, apart, same)
    over = ppl("--window", 64, "--stride", 16, "--json", text()).expect(0).json()
    assert over["ppl"] < apart["ppl"] and over["stride"] == 16, (over, apart)
    assert over["tokens"] == 63 + 16 * (over["windows"] - 1) and over["dropped"] < 16, over
    ppl("--window", 64, "--stride", 65, text()).expect(1, "stride of 65", "64")


@test
def for_people():
    r = ppl("--window", 64, "--max-windows", 2, text()).expect(0)
    lines = r.out.decode().splitlines()
    assert len(lines) == 2 and lines[0].startswith(text() + ": perplexity ") and "over 126 tokens" in lines[0], r
    assert " words, " in lines[1] and lines[1].endswith(" bits a byte"), r


@test
def a_text_of_one_word():
    r = ppl("--window", 4, "--json", "-", stdin=b"a" * 400).expect(0).json()
    assert r["words"] == 1 or r["word_ppl"] is None, r
    assert r["bits_per_byte"] > 0, r


main()
