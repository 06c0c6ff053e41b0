#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom generate, tokenize, sample-calib, inspect and eval on models/tiny."""
import signal

from clitest import *

PROMPT = "The president of the united states said that"


def generate(*args, model=TINY, prompt=PROMPT, **kw):
    return atom("generate", model, "--prompt", prompt, "--json", *args, **kw).expect(0).json()


@test
def greedy_text_of_the_reference():
    for case in json.loads(read(os.path.join(TINY, "reference.json")))["cases"]:
        r = generate("--max-tokens", 32, "--ignore-eos", prompt=case["prompt"])
        assert r["ids"] == case["greedy32"], (case["prompt"], r["ids"])
        assert r["text"] == case["greedy_text"], (r["text"], case["greedy_text"])
        assert r["prompt_tokens"] == len(case["ids"]) and r["finish_reason"] == "length", r


@test
def text_on_standard_output_is_the_text_of_json():
    for args in (["--max-tokens", 20], ["--max-tokens", 40, "--temperature", 1, "--seed", 3]):
        plain = atom("generate", TINY, "--prompt", PROMPT, *args).expect(0)
        # On standard output the text goes on from the prompt; by itself it loses the space that joins them.
        assert plain.out.decode() == " " + generate(*args)["text"], plain
        assert plain.err == "", plain


@test
def text_continues_the_prompt():
    for prompt in ("He", "He ", "caf\u00e9", "\u4f60\u597d", "a\n\n", "x \U0001F600"):
        for seed in range(3):
            r = generate("--max-tokens", 24, "--temperature", 1.5, "--seed", seed, "--ignore-eos", prompt=prompt)
            ids = atom("tokenize", TINY, "--bos", stdin=json.dumps({"text": prompt}).encode()).expect(0).json()["ids"]
            assert r["prompt_tokens"] == len(ids)
            # A character made of several tokens is not told again after the prompt.
            assert ord(prompt[-1]) < 128 or not r["text"].startswith(prompt[-1]), (prompt, r["text"])


@test
def prompt_from_file_and_standard_input():
    want = generate("--max-tokens", 8)
    file = write("prompt.txt", PROMPT)
    assert atom("generate", TINY, "--prompt-file", file, "--json", "--max-tokens", 8).expect(0).json() == want
    r = atom("generate", TINY, "--prompt-file", "-", "--json", "--max-tokens", 8, stdin=PROMPT.encode())
    assert r.expect(0).json() == want


@test
def empty_prompts():
    r = generate("--max-tokens", 4, prompt="")
    assert r["prompt_tokens"] == 1 and len(r["ids"]) == 4
    model = copy_model("no-bos")
    tokenizer = json.loads(read(os.path.join(TINY, "tokenizer.json")))
    tokenizer["post_processor"] = None
    write("no-bos/tokenizer.json", json.dumps(tokenizer))
    atom("generate", model, "--prompt", "").expect(1, "the prompt is empty")
    assert generate("--max-tokens", 4, model=model, prompt="x")["ids"]


@test
def added_tokens_in_a_prompt():
    assert generate("--max-tokens", 1, prompt="<s>")["prompt_tokens"] == 2


@test
def stop_strings():
    whole = generate("--max-tokens", 40)
    text = whole["text"]
    assert len(text) > 60
    for stop in [text[9:10], text[12:14], text[17:30], text[3:50], text[-1:], text[:1], text[:5]]:
        want = text[:text.index(stop)]
        r = generate("--max-tokens", 40, "--stop", stop)
        assert r["text"] == want and r["finish_reason"] == "stop", (stop, r)
        assert r["ids"] == whole["ids"][:len(r["ids"])] and len(r["ids"]) <= 40
        plain = atom("generate", TINY, "--prompt", PROMPT, "--max-tokens", 40, "--stop", stop).expect(0)
        assert plain.out.decode() == " " + want, plain
    # Of several the first to be complete; those that never come change nothing, even when they begin.
    r = generate("--max-tokens", 40, "--stop", text[30:35], "--stop", text[10:16], "--stop=\u00e9")
    assert r["text"] == text[:min(text.index(text[30:35]), text.index(text[10:16]))], r
    r = generate("--max-tokens", 40, "--stop", text[-6:] + "@", "--stop", text[5:20] + "@")
    assert r == whole, r


@test
def end_of_text():
    model = copy_model("eos")
    ids = generate("--max-tokens", 12)["ids"]
    set_config(model, eos_token_id=[2, ids[5]])
    r = generate("--max-tokens", 12, model=model)
    assert r["ids"] == ids[:ids.index(ids[5]) + 1] and r["finish_reason"] == "stop", r
    r = generate("--max-tokens", 12, "--ignore-eos", model=model)
    assert r["ids"] == ids and r["finish_reason"] == "length", r


@test
def the_last_position():
    model = copy_model("short")
    n = generate("--max-tokens", 1)["prompt_tokens"]
    set_config(model, max_position_embeddings=n + 5)
    for args in ([], ["--max-tokens", 1000]):
        r = generate("--ignore-eos", *args, model=model)
        assert len(r["ids"]) == 6 and r["finish_reason"] == "length", r
    set_config(model, max_position_embeddings=n)
    assert len(generate(model=model)["ids"]) == 1
    set_config(model, max_position_embeddings=n - 1)
    atom("generate", model, "--prompt", PROMPT).expect(1, "%d tokens" % n, "%d positions" % (n - 1))


@test
def a_long_prompt_goes_in_chunks():
    prompt = read(text()).decode()[:5000]
    one = atom("generate", TINY, "--prompt", prompt, "--max-tokens", 16, "--json").expect(0).json()
    assert one["prompt_tokens"] > 1024 and len(one["ids"]) == 16


@test
def sampling():
    hot = ["--max-tokens", 30, "--temperature", 1]
    a, b, c = generate("--seed", 1, *hot), generate("--seed", 1, *hot), generate("--seed", 2, *hot)
    assert a == b and a["ids"] != c["ids"]
    greedy = generate("--max-tokens", 30)
    assert generate("--top-k", 1, *hot)["ids"] == greedy["ids"]
    assert generate("--top-p", 0.000001, *hot)["ids"] == greedy["ids"]
    assert generate("--top-p", 1, "--seed", 1, *hot) == a
    assert generate("--seed", 18446744073709551615, *hot)["ids"]


@test
def stats_go_to_standard_error():
    r = atom("generate", TINY, "--prompt", "x", "--max-tokens", 4, "--stats")
    r.expect(0, "prompt: ", "a second", "length")
    assert "second" not in r.out.decode()


@test
def an_interrupt_ends_the_text():
    p = start("--threads", 1, "generate", TINY, "--prompt", PROMPT, "--max-tokens", 2000, "--ignore-eos")
    first = p.stdout.read(10)
    p.send_signal(signal.SIGINT)
    rest, err = p.communicate(timeout=60)
    assert p.returncode == 130, (p.returncode, err)
    assert PROMPT and len(first + rest) < 6000, len(rest)
    p = start("--threads", 1, "generate", TINY, "--prompt", PROMPT, "--json", "--ignore-eos")
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    if p.returncode == 130:
        assert json.loads(out)["finish_reason"] == "cancelled", out
    else:
        raise Skip("all was written before the signal came (status %d)" % p.returncode)


@test
def same_bits_on_tiers_and_threads():
    model = quantized()
    args = ["generate", model, "--prompt", PROMPT, "--json", "--max-tokens", 64, "--ignore-eos"]
    ways = [["--cpu", "scalar"], ["--cpu", "avx2"], ["--cpu", "avxvnni"], ["--threads", 1], ["--threads", 2], ["--threads", 7]]
    want, ppl = atom(*args).expect(0).json(), None
    for way in [[]] + ways:
        r = atom(*way, *args)
        if r.rc and "this processor has no" in r.err:
            continue
        assert r.expect(0).json() == want, (way, r)
        r = atom(*way, "eval", "ppl", model, text(), "--window", 96, "--max-windows", 3, "--json", "-q")
        r = r.expect(0).json()
        digits = "%.10g %.10g" % (r["ppl"], r["nll"])
        assert ppl in (None, digits), (way, ppl, digits)
        ppl = digits
    hot = args + ["--temperature", 1, "--seed", 5]
    assert atom("--cpu", "scalar", "--threads", 1, *hot).json() == atom(*hot).json()


@test
def perplexity():
    r = atom("eval", "ppl", TINY, text(), text(), "--window", 128, "--json", "-q").expect(0).lines()
    assert len(r) == 2 and r[0]["ppl"] == r[1]["ppl"] and 1 < r[0]["ppl"] < 1000, r
    assert r[0]["tokens"] == r[0]["windows"] * 127
    q = atom("eval", "ppl", quantized(), text(), "--window", 128, "--json", "-q").expect(0).json()
    assert r[0]["ppl"] * 0.9 < q["ppl"] < r[0]["ppl"] * 1.5, (r[0]["ppl"], q["ppl"])
    plain = atom("eval", "ppl", TINY, text(), "--window", 128).expect(0).out.decode()
    assert "perplexity %.4f" % r[0]["ppl"] in plain, plain


@test
def windows_a_model_writes():
    def sample(name, *before, samples=5, seed=1):
        out = path(name)
        atom(*before, "sample-calib", TINY, "--samples", samples, "--window", 50, "--seed", seed, "-o", out,
             "-q").expect(0)
        assert not os.path.exists(out + ".tmp")
        return read(out)

    a = sample("a.jsonl")
    lines = [json.loads(l)["ids"] for l in a.splitlines()]
    assert len(lines) == 5 and all(len(l) == 50 and l[0] == 1 for l in lines)
    assert all(l[i + 1] == 1 for l in lines for i in range(49) if l[i] == 2)
    assert len(set(map(tuple, lines))) == 5
    assert sample("b.jsonl") == a and sample("c.jsonl", seed=2) != a
    for way in (["--threads", 1], ["--threads", 5]):
        assert sample("d.jsonl", *way) == a, way
    assert sample("e.jsonl", samples=40).startswith(a)
    atom("quantize", TINY, "-o", path("from-ids"), "--calib-ids", path("a.jsonl"), "--samples", 5, "--window", 50,
         "-q").expect(0)
    # Found out before the work, not after it.
    atom("sample-calib", TINY, "-o", path("no/such/file"), timeout=20).expect(1, "no/such/file")
    shell("ulimit -f 2; $ATOM sample-calib %s --samples 4 --window 500 -o %s -q" % (TINY, path("big.jsonl"))).expect(
        1, "big.jsonl", "File too large")
    assert not os.path.exists(path("big.jsonl")) and not os.path.exists(path("big.jsonl.tmp"))


@test
def inspect_of_a_float_model():
    j = atom("inspect", TINY, "--json").expect(0).json()
    assert not j["quantized"] and j["config"]["layers"] == 4 and j["config"]["hidden"] == 256
    assert j["bits_per_weight"] == 16 and j["bytes"]["linears"] == j["bytes"]["linears_bf16"]
    assert j["kv_bytes_per_token"] == 4 * 2 * 2 * 128 * 4 == 2 * j["kv_bytes_per_token_f16"]
    assert j["bytes"]["total"] == sum(v for k, v in j["bytes"].items() if k not in ("total", "linears_bf16"))
    assert len(j["linears"]) == 28 and all(l["error"] is None for l in j["linears"])
    assert j["n_tensors"] == len(j["tensors"])


@test
def inspect_of_a_quantized_model():
    model = quantized()
    j = atom("inspect", model, "--json").expect(0).json()
    config = json.loads(read(os.path.join(model, "config.json")))["quantization_config"]
    assert j["scheme"] == config, (j["scheme"], config)
    assert j["quantized"] and 4 < j["bits_per_weight"] < 6
    assert j["bytes"]["linears_bf16"] == 6815744
    assert j["bytes"]["total"] == sum(v for k, v in j["bytes"].items() if k not in ("total", "linears_bf16"))
    assert j["kv_bytes_per_token"] == 4 * 2 * 2 * (64 + 4)
    report = {l["name"]: l for l in json.loads(read(os.path.join(model, "atom_report.json")))["linears"]}
    for l in j["linears"]:
        assert abs(l["error"] - report[l["name"]]["error"]) < 1e-8 * abs(l["error"]) + 1e-9, l
        assert abs(l["bits_per_weight"] - report[l["name"]]["bits"]) < 1e-6, l
        assert abs(8 * l["bytes"] / (l["shape"][0] * l["shape"][1]) - l["bits_per_weight"]) < 1e-6
    assert sum(l["bytes"] for l in j["linears"]) == j["bytes"]["linears"]
    page = atom("inspect", model).expect(0).out.decode()
    for words in ("scheme", "4 bits", "linears", "embeddings", "100.0%", "gate"):
        assert words in page, page
    assert max(len(l) for l in page.splitlines()) <= 100, page
    assert "model.layers.3.down_in.order" in atom("inspect", model, "--tensors").expect(0).out.decode()


@test
def tokenize_lines():
    texts = ["", "Hello, world", " two  spaces ", "caf\u00e9 \u4f60\u597d \U0001F600", "a\u0000b", "<s>x</s>",
             "tab\tand\nline", "\u0301e"]
    stdin = "".join(json.dumps({"text": t}) + "\n\n" for t in texts).encode()
    plain = atom("tokenize", TINY, stdin=stdin).expect(0).lines()
    bos = atom("tokenize", TINY, "--bos", stdin=stdin).expect(0).lines()
    assert len(plain) == len(bos) == len(texts)
    for p, b in zip(plain, bos):
        assert b["ids"] == [1] + p["ids"], (p, b)
    for t, p in zip(texts, plain):
        if "<s>" not in t:
            assert p["decoded"].strip() == t.strip(), (t, p)
    again = "".join(json.dumps({"text": p["decoded"]}) + "\n" for p in plain).encode()
    for p, a, t in zip(plain, atom("tokenize", TINY, stdin=again).expect(0).lines(), texts):
        assert a["ids"] == p["ids"] or "<s>" in t, (p, a)
    for bad in (b"{", b"[]", b'{"text": 5}', b'{"ids": [1]}', b'{"text": "\xff"}', b'{"text": "a", "text": "b"}'):
        atom("tokenize", TINY, stdin=b'{"text": "x"}\n' + bad + b"\n").expect(1, "line 2")


@test
def sampled_windows_go_where_they_are_told():
    args = ["sample-calib", TINY, "-q", "--samples", 1, "--window", 8, "-o"]
    write("target.jsonl", b"old")
    os.symlink("target.jsonl", path("link.jsonl"))
    atom(*args, path("link.jsonl")).expect(0)
    assert os.path.islink(path("link.jsonl")) and json.loads(read(path("target.jsonl")))["ids"]
    os.mkdir(path("a-folder"))
    atom(*args, path("a-folder")).expect(1, "a-folder: Is a directory")
    assert json.loads(atom(*args, "/dev/stdout").expect(0).out)["ids"]
    full = full_device()
    atom(*args, full).expect(1, "full: No space left")
    assert stat.S_ISCHR(os.stat(full).st_mode)


main()
