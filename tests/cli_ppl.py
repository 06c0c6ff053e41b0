#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval ppl from outside: what a line holds, by tokens, words and bytes; windows that overlap."""
import json
import math
import random

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


def rows_of(joined):
    """WikiText-2's rows out of "\\n\\n".join(rows): lines with their ends, and empty ones."""
    rows, at = [], 0
    while at <= len(joined):
        end = at if joined.startswith("\n\n", at) or at == len(joined) else joined.index("\n", at) + 1
        rows.append(joined[at:end])
        at = end + 2
    return rows


def same_text(dataset, file, joined, *options):
    """The file under --dataset scores as the joined text does by itself."""
    got = ppl("--json", "--dataset", dataset, *options, file).expect(0).json()
    want = ppl("--json", *options, write("joined.txt", joined)).expect(0).json()
    for key in want:
        assert key in ("file", "seconds") or got[key] == want[key], (dataset, key, got, want)
    return got


@test
def rows_of_wikitext():
    rows = ["", " = A Title = \n", "", " Once there was a king , and he had a son . \n", " A second row . \n", ""]
    raw = "".join(r or " \n" for r in rows)
    joined = "\n\n".join(rows)
    assert rows_of(joined) == rows
    same_text("wikitext2", write("wiki.raw", raw), joined, "--window", 8)
    same_text("wikitext2", write("wiki.raw", raw.rstrip(" \n")), "\n\n".join(rows[:-1]).rstrip(" \n"), "--window", 8)


@test
def rows_of_wikitext_as_it_was_joined():
    joined = os.path.join(os.environ.get("ATOM_SHARED", "../shared"), "data", "wikitext2.test.txt")
    if not os.path.exists(joined):
        raise Skip("data/wikitext2.test.txt is not in the shared data")
    rows = rows_of(read(joined).decode())
    assert len(rows) > 4000 and "\n\n".join(rows) == read(joined).decode(), len(rows)
    file = write("wiki.test.raw", "".join(r or " \n" for r in rows))
    got = ppl("--json", "--dataset", "wikitext2", "--window", 64, "--max-windows", 8, file).expect(0).json()
    want = ppl("--json", "--window", 64, "--max-windows", 8, joined).expect(0).json()
    assert (got["ppl"], got["dropped"]) == (want["ppl"], want["dropped"]), (got, want)


@test
def rows_of_penn_treebank():
    rows = ["the king went out of the house", "", "he came back in the morning and said so"]
    file = write("ptb.txt", "".join(" %s \n" % r for r in rows))
    same_text("ptb", file, "\n\n".join(rows), "--window", 6)
    same_text("ptb-new", file, " ".join(rows), "--window", 6)


@test
def rows_of_c4():
    rows = ["One \u00e9 row\nof two lines, number %d." % i for i in range(1102)]
    file = write("c4.json", "".join(json.dumps({"text": r, "url": "u"}) + "\n" for r in rows))
    r = same_text("c4-new", file, " ".join(rows[:1100]), "--window", 8, "--max-windows", 256)
    assert r["windows"] == 256, r
    got = ppl("--json", "--dataset", "c4-new", "--window", 8, file).expect(0).json()
    assert got["windows"] == 256 and got["ppl"] == r["ppl"], got
    fewer = ppl("--json", "--dataset", "c4-new", "--window", 8, "--max-windows", 3, file).expect(0).json()
    assert fewer["windows"] == 3, fewer
    for bad in ('{"text": 5}', "text", "", "[]", '{"text": "a"'):
        file = write("bad.json", '{"text": "One."}\n%s\n' % bad)
        ppl("--dataset", "c4-new", "--window", 2, file).expect(1, "bad.json: line 2")


@test
def windows_drawn_from_c4():
    window, long, short = 8, {}, "It was."
    for i in range(4):  # rows of a window and one token, so that the place drawn is always the first
        words = "The king had %s sons and a daughter that he loved above all the others" % ("", "two", "no", "three")[i]
        cut = next(n for n in range(len(words)) if len(ids_of(words[:n])) == window + 1)
        long[i] = words[:cut]
    rows = [long[i // 3 % 4] if i % 3 == 0 else short for i in range(60)]
    got = ppl("--json", "--dataset", "c4", "--window", window, c4_file(rows)).expect(0).json()
    each = {t: ppl("--json", "--window", window, "--max-windows", 1, write("row.txt", t)).expect(0).json()["nll"]
            for t in long.values()}
    draw, total = random.Random(0), 0.0
    for _ in range(256):
        row = draw.randint(0, 59)
        while rows[row] == short:
            row = draw.randint(0, 59)
        draw.randint(0, 0)
        total += each[rows[row]]
    assert got["windows"] == 256 and abs(got["nll"] * 256 - total) < 1e-5 * total, (got, total / 256)
    few = ppl("--json", "--dataset", "c4", "--window", window, "--max-windows", 5, c4_file(rows)).expect(0).json()
    assert few["windows"] == 5 and few["nll"] != got["nll"], few
    c4 = lambda rows: ppl("--dataset", "c4", "--window", window, c4_file(rows))
    c4([short, short]).expect(1, "c4.json", "none of the 2 rows", "8 tokens")
    c4([]).expect(1, "none of the 0 rows")
    ppl("--dataset", "c4", "--window", 2, write("bad.json", "no\n")).expect(1, "bad.json: line 1")
    exact = next(long[0][:n] for n in range(99) if len(ids_of(long[0][:n])) == window)
    c4([exact]).expect(1, "line 1 has exactly 8 tokens")


def ids_of(text):
    """With BOS."""
    line = json.dumps({"text": text}) + "\n"
    return atom("tokenize", TINY, "--bos", stdin=line.encode()).expect(0).json()["ids"]


def c4_file(rows):
    return write("c4.json", "".join(json.dumps({"text": r}) + "\n" for r in rows))


@test
def data_sets_that_are_none():
    ppl("--dataset", "c5", text()).expect(2, "wikitext2|ptb|ptb-new|c4|c4-new")
    ppl("--dataset", "ptb", write("empty.txt", b"")).expect(1, "empty.txt", "less than one window")


@test
def dropped_is_what_fills_no_window():
    args = ["eval", "ppl", TINY, text(), "--window", 64, "-q"]
    ids = len(json.loads(shell("python3 -c 'import json; print(json.dumps({\"text\": open(\"%s\").read()}))' | "
                               "$ATOM tokenize %s --bos" % (text(), TINY)).out)["ids"])
    for stride in (64, 24):
        every = atom(*args, "--json", "--stride", stride).expect(0).json()
        some = atom(*args, "--json", "--stride", stride, "--max-windows", 2).expect(0).json()
        assert every["windows"] == 1 + (ids - 64) // stride and some["windows"] == 2, (every, some)
        assert every["dropped"] == some["dropped"] == (ids - 64) % stride, (ids, every, some)
    line = atom(*args, "--max-windows", 2).expect(0).out.decode()
    assert "2 windows of 64; %d tokens at the end fill none" % (ids % 64) in line, line


@test
def names_that_no_json_holds():
    strange = path("").encode() + b"\xff.txt"
    with open(strange, "wb") as f:
        f.write(read(text()))
    few = ["--window", 64, "--max-windows", 1, "-q"]
    for args in (["ppl", TINY, strange], ["kld", TINY, TINY, strange]):
        atom("eval", *args, *few).expect(0)
        assert atom("eval", *args, *few, "--json").expect(1, "not UTF-8").out == b""


main()
