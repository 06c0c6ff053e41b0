#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval kld from outside: one model against another."""
from clitest import *

SPREAD = ["mean", "standard_error", "min", "p0.1", "p1", "p10", "median", "p90", "p99", "p99.9", "max"]


def kld(a, b, *args):
    return atom("eval", "kld", a, b, "-q", *args)


@test
def a_model_against_itself():
    for model in (TINY, quantized()):
        r = kld(model, model, "--window", 64, "--max-windows", 3, "--json", text()).expect(0).json()
        assert r["kl"] == r["change"] == {k: 0 for k in SPREAD}, r
        assert r["top1"] == 1 and r["ppl_a"] == r["ppl_b"] and r["tokens"] == 3 * 63, r


@test
def a_quantized_model_against_its_float_original():
    options = ["--window", 128, "--max-windows", 4, "--json"]
    r = kld(TINY, quantized(), *options, text()).expect(0).json()
    assert list(r["kl"]) == list(r["change"]) == SPREAD, r
    assert 0 < r["kl"]["mean"] < 2 and r["kl"]["min"] >= 0 and 0.5 < r["top1"] < 1, r
    for name in ("kl", "change"):
        assert [r[name][k] for k in SPREAD[2:]] == sorted(r[name][k] for k in SPREAD[2:]), r[name]
    for model, key in ((TINY, "ppl_a"), (quantized(), "ppl_b")):
        ppl = atom("eval", "ppl", model, "-q", *options, text()).expect(0).json()
        assert abs(ppl["ppl"] / r[key] - 1) < 1e-6, (ppl, r)
        assert all(ppl[k] == r[k] for k in ("file", "tokens", "window", "windows", "dropped")), (ppl, r)


@test
def for_people():
    r = kld(TINY, quantized(), "--window", 128, "--max-windows", 2, text()).expect(0)
    lines = r.out.decode().splitlines()
    assert r.err == "" and lines[0].startswith(text() + ": 254 tokens (2 windows of 128; "), r
    assert "KL(A || B)" in lines[1] and "change of log p" in lines[1], r
    assert [l[:16].strip() for l in lines[2:13]] == ["mean", "standard error", "least", "0.1 %", "1 %", "10 %", "median",
                                                     "90 %", "99 %", "99.9 %", "largest"], r
    assert lines[13].startswith("same top token ") and len(lines) == 14, r


@test
def several_files_and_standard_input():
    first, both = write("first.txt", read(text())[:1500]), ["--window", 32, "--json"]
    lines = kld(TINY, quantized(), *both, first, text()).expect(0).lines()
    assert [l["file"] for l in lines] == [first, text()] and lines[0]["tokens"] < lines[1]["tokens"], lines
    piped = atom("eval", "kld", TINY, quantized(), "-q", *both, "-", stdin=read(first)).expect(0).json()
    assert piped["kl"] == lines[0]["kl"], (piped, lines[0])


@test
def progress_is_words():
    r = atom("eval", "kld", TINY, TINY, "--window", 64, "--max-windows", 1, "--json", text()).expect(0)
    assert "divergence" in r.err and r.json(), r


@test
def vocabularies_that_differ():
    """Two tokens exchanged, one more token, a merge less."""
    for name, edit, words in (("swapped", lambda t: t["model"]["vocab"].update(N=301, O=300), "token 300 is 'N'"),
                              ("more", lambda t: t["added_tokens"].append(dict(t["added_tokens"][2], id=4096,
                                                                               content="<more>")), "4097"),
                              ("unmerged", lambda t: t["model"]["merges"].pop(0), "cut the text differently")):
        model = copy_model(name)
        tokenizer = json.loads(read(os.path.join(model, "tokenizer.json")))
        edit(tokenizer)
        write(os.path.join(name, "tokenizer.json"), json.dumps(tokenizer))
        kld(TINY, model, "--window", 64, text()).expect(1, words)


@test
def what_is_not_there():
    atom("eval", "kld", TINY, TINY).expect(2, "argument is missing", "eval kld --help")
    kld(TINY, path("no-model"), text()).expect(1, "no-model")
    kld(path("no-model"), TINY, text()).expect(1, "no-model")
    kld(TINY, TINY, path("no.txt")).expect(1, "no.txt: No such file")
    kld(TINY, TINY, write("empty.txt", b"")).expect(1, "empty.txt", "less than one window")
    kld(TINY, TINY, "--window", 1 << 20, text()).expect(1, "model A takes 2048 positions")


main()
