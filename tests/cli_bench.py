#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom bench with the shape made for tests. No test depends on a speed."""
import resource

from clitest import *

QUICK = ["--shape", "tiny", "--repeat", 2, "--prefill", 24, "--decode", 3, "--depth", "0,20", "--batch", "1,3"]


def bench(*args, globals=(), **kw):
    return atom(*globals, "bench", "cpu", *args, **kw)


def phases(lines):
    return [(l["phase"], l["tokens"], l["depth"], l["batch"]) for l in lines if l["what"] == "model"]


@test
def lines_of_whole_models():
    lines = bench(*QUICK, "--json").expect(0).lines()
    assert [l["what"] for l in lines].count("memory") == 1 and not [l for l in lines if l["what"] == "kernel"]
    assert phases(lines) == [("prefill", 24, 0, 1), ("decode", 3, 0, 1), ("decode", 3, 0, 3),
                             ("prefill", 24, 20, 1), ("decode", 3, 20, 1), ("decode", 3, 20, 3)], phases(lines)
    threads = int(atom("--version").out.split()[-2])
    for l in lines:
        assert l["machine"] and l["compiler"] and l["version"] and l["tier"], l
        if l["what"] != "model":
            continue
        assert (l["shape"], l["kv"], l["wbits"], l["abits"], l["head"]) == ("tiny", 4, 4, 4, 8), l
        assert l["threads"] == threads, l
        assert l["tok_s"] > 0 and 0 < l["fastest_s"] <= l["median_s"], l
        assert abs(l["tok_s"] * l["median_s"] - l["tokens"] * l["batch"]) < 0.01 * l["tokens"] * l["batch"], l
        # int8 has no ceiling in the scalar tier
        assert l["share"] is None and l["tier"] == "scalar" and l["phase"] == "prefill" or l["share"] > 0, l
    memory = [l for l in lines if l["what"] == "memory"][0]
    for field in ("weights_bytes", "head_bytes", "embedding_bytes", "kv_4096_bytes", "peak_bytes"):
        assert memory[field] > 0, memory


@test
def ceilings():
    lines = bench("--shape", "tiny", "--only", "ceilings", "--json", globals=["--threads", 2]).expect(0).lines()
    assert [(l["name"], l["threads"]) for l in lines] == [(n, t) for n in ("int8", "f32", "bf16", "read")
                                                         for t in (1, 2)], lines
    for l in lines:
        assert l["what"] == "ceiling" and (l["name"] != "read" or l["bytes_s"] > 0), l
    page = bench("--shape", "tiny", "--only", "ceilings", globals=["--cpu", "scalar", "--threads", 1]).expect(0).out
    assert b"int8" in page and b"none in this tier" in page and b"2 threads" not in page, page


@test
def kernels_have_the_bits_of_scalar():
    lines = bench("--shape", "tiny", "--only", "kernels", "--json").expect(0).lines()
    kernels = [l for l in lines if l["what"] == "kernel"]
    assert kernels == lines
    names = {(l["name"], l.get("on")) for l in kernels}
    for name in (("norm", None), ("linear", "qkv"), ("linear", "o"), ("linear", "gate_up"), ("linear", "down"),
                 ("store", None), ("attend", None), ("gather", None), ("silu", None), ("linear bf16", "gate_up"),
                 ("logits", "int8 head"), ("logits", "bf16 head")):
        assert name in names, name
    # Comparing goes through the scalar tier and has to find back.
    assert {l["tier"] for l in kernels} == {atom("--version").out.decode().split()[2].rstrip(",")}
    for l in kernels:
        assert l["median_s"] > 0 and len(l["same_bits_at_tokens"]) >= 2, l
    assert {l["kv"] for l in kernels if l["name"] == "attend"} == {4, 8, 16}
    linears = [l for l in kernels if l["name"] == "linear" and l["on"] == "down"]
    assert {l["abits"] for l in linears} == {4, 8} and {l["tokens"] for l in linears} == {1, 4, 16, 32, 512}


@test
def kernels_of_the_tier_with_bits_of_its_own():
    r = bench("--shape", "tiny", "--only", "kernels", "--json", globals=["--cpu", "avx512bf16"])
    if r.rc:
        r.expect(1, "no avx512bf16 tier")
        raise Skip("this processor has no avx512bf16 tier")
    for l in r.expect(0).lines():
        own = l["name"] == "linear bf16" or l.get("on") == "bf16 head"
        assert l["tier"] == "avx512bf16" and (l["same_bits_at_tokens"] == []) == own, l
        assert l["bound"] != "f32" or not own, l


@test
def table():
    r = bench(*QUICK, "-q").expect(0)
    page = r.out.decode()
    assert r.err == "", r
    for words in ("ceilings of this machine", "model of the tiny shape, W4A4KV4, 8-bit head", "tok/s", "prefill",
                  "decode", "memory of the tiny shape", "peak of the process"):
        assert words in page, words
    assert max(len(l) for l in page.splitlines()) <= 120, page
    rows = [l for l in page.splitlines() if l.startswith(("  prefill", "  decode"))]
    assert len(rows) == 6 and len({l.index(" %") if " %" in l else 0 for l in rows}) == 1, rows
    assert "operations of" not in page


@test
def bits_that_are_chosen():
    lines = bench(*QUICK, "--kv", 16, "--abits", 8, "--head", 16, "--json", "--only", "models").expect(0).lines()
    assert {l["what"] for l in lines} == {"model", "memory"}
    assert {(l["kv"], l["abits"], l["head"]) for l in lines} == {(16, 8, 16)}


@test
def several_shapes_and_phases_left_out():
    lines = bench("--shape", "tiny", "--shape", "tiny", "--prefill", 0, "--depth", 7, "--decode", "2,1", "--batch", 2,
                  "--json", "--repeat", 1).expect(0).lines()
    assert phases(lines) == [("decode", 1, 7, 2), ("decode", 2, 7, 2)] * 2, phases(lines)


@test
def wrong_usage():
    atom("bench").expect(2, "argument is missing")
    atom("bench", "tpu").expect(2, "tpu")
    for option in ("--prefill", "--decode", "--depth", "--batch"):
        for bad in ("", "x", "1,", "-1", "1,,2", "1 2", "9" * 30, ",".join("1" * 17)):
            bench(option, bad).expect(2, option)
    bench("--batch", 0).expect(2, "--batch")
    bench("--shape", "9b").expect(1, "9b", "tiny, 1.1b, 7b, 13b, 70b, 8b")
    bench("--only", "all").expect(2, "--only")
    bench("--kv", 3).expect(2, "--kv")
    bench("--repeat", 0).expect(2, "--repeat")
    bench("--write", path("w"), "--load", path("w")).expect(2, "exclude")
    bench("--write", path("w"), "--shape", "tiny", "--shape", "1.1b").expect(2, "one --shape")
    bench("--plot", path("p.svg"), "--only", "ceilings").expect(2, "--plot")
    bench("--plot", path("p.svg"), "--prefill", 0, "--decode", 0).expect(2, "nothing to draw")


@test
def a_checkpoint_that_is_written():
    out = path("written")
    r = bench("--shape", "tiny", "--write", out + "/").expect(0)
    shards = ["model-0000%d-of-00003.safetensors" % i for i in (1, 2, 3)]
    assert sorted(os.listdir(out)) == ["config.json"] + shards + ["model.safetensors.index.json", "tokenizer.json"]
    assert not os.path.exists(out + ".partial")
    inspected = atom("inspect", out, "--json").expect(0).json()
    assert inspected["quantized"] and inspected["config"]["vocab"] == 512
    memory = [l for l in bench(*QUICK, "--json").lines() if l["what"] == "memory"][0]
    assert inspected["bytes"]["linears"] == memory["weights_bytes"]
    assert inspected["bytes"]["head"] == memory["head_bytes"]
    assert inspected["bytes"]["embeddings"] == memory["embedding_bytes"]
    assert inspected["kv_bytes_per_token"] * 4096 == memory["kv_4096_bytes"]
    one = atom("generate", out, "--prompt", "hello", "--max-tokens", 6, "--ignore-eos", "--json").expect(0).json()
    assert len(one["ids"]) == 6
    before = {f: read(os.path.join(out, f)) for f in os.listdir(out)}
    bench("--shape", "tiny", "--write", out).expect(1, "written is there already")
    assert before == {f: read(os.path.join(out, f)) for f in os.listdir(out)}
    again = path("again")
    bench("--shape", "tiny", "--write", again).expect(0)
    assert before == {f: read(os.path.join(again, f)) for f in os.listdir(again)}
    line = bench("--load", out, "--json").expect(0).json()
    assert line["what"] == "load" and line["open_s"] > 0 and line["first_token_s"] > 0 and line["peak_bytes"] > 0
    assert line["dir"] == out
    assert b"until the model was open" in bench("--load", out).expect(0).out


@test
def directories_that_cannot_be():
    os.mkdir(path("left.partial"))
    bench("--shape", "tiny", "--write", path("left")).expect(1, "left.partial is there already")
    bench("--shape", "tiny", "--write", path("no/such")).expect(1, "no/such.partial")
    bench("--shape", "tiny", "--write", "").expect(1, "no name")
    bench("--load", path("nothing")).expect(1, "nothing")
    bench("--load", path("left.partial")).expect(1, "config.json")


@test
def a_full_disk_leaves_nothing():
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    bench("--shape", "tiny", "--write", path("full"), before=small_files).expect(1, "full.partial/model-00001-of-00003.safetensors")
    assert not os.path.exists(path("full")) and not os.path.exists(path("full.partial"))


def gpu(*args, **kw):
    return atom("bench", "gpu", *args, **kw)


@test
def gpu_usage():
    page = gpu("--help").expect(0).out.decode()
    assert page.startswith("usage: atom bench gpu [options]") and "minute on an H100" in page, page
    for bad in ("9b", "1x", "x1", "0x5", ""):
        gpu("--shape", bad).expect(2, "there is no shape '%s'" % bad, "11008x4096", "atom bench gpu --help")
    for bad in ("w2a2", "", "w4a4,", "fp16 "):
        gpu("--schemes", bad).expect(2, "there is no scheme")
    for bad in ("", "0", "x", "1,", "-1"):
        gpu("--tokens", bad).expect(2, "--tokens")
    gpu("--plot", path("p.svg"), "--only", "rows").expect(2, "--plot")
    gpu("--only", "models").expect(2, "--only")
    gpu("extra").expect(2, "too many arguments")


@test
def gpu_without_one():
    r = shell("CUDA_VISIBLE_DEVICES= $ATOM bench gpu --shape 64x64 --json").expect(1, "CUDA")
    assert r.out == b"" and r.err.startswith("atom: ") and r.err.count("\n") == 1, r


@test
def gpu_lines():
    r = gpu("--shape", "tiny", "--shape", "100x77", "--tokens", "3,1", "--repeat", 3, "--json")
    if r.rc == 1 and ("no CUDA" in r.err or "without CUDA" in r.err):
        raise Skip(r.err.strip())
    lines = r.expect(0).lines()
    assert [l["name"] for l in lines if l["what"] == "ceiling"][:2] == ["read", "copy"], lines
    for l in lines:
        assert l["device"] and l["driver"] and l["cuda"] and l["compiler"], l
    timed = [l for l in lines if l["what"] != "ceiling" and "median_us" in l]
    for l in timed:
        assert 0 < l["fastest_us"] <= l["median_us"] and l["checked"] > 0 and l["repeats"] == 3, l
    linears = [l for l in timed if l["what"] == "linear"]
    assert {l["shape"] for l in linears} >= {"100x77", "512x256", "1408x256"}, linears
    assert [l["tokens"] for l in linears if l["shape"] == "100x77" and l["scheme"] == "w4a4"] == [1, 3], linears
    assert {l["name"] for l in timed if l["what"] == "rows"} >= {"norm", "silu_mul"}, timed
    page = gpu("--shape", "64x64", "--tokens", "1", "--repeat", 1).expect(0).out.decode()
    assert "ceilings of this device" in page and "linear of 64 rows, 64 channels" in page, page
    assert max(len(l) for l in page.splitlines()) <= 120, page


@test
def plots():
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    out = path("plot.svg")
    bench(*QUICK, "--plot", out, "--only", "models").expect(0)
    svg = read(out).decode()
    for words in ("<svg", "tiny shape", "prefill 24, depth 20", "decode 3 at once, depth 0", "tok/s"):
        assert words in svg, words
    assert not os.path.exists(out + ".tmp")
    bench(*QUICK, "--plot", path("no/plot.svg")).expect(1, "no/plot.svg")


@test
def plots_without_gnuplot():
    r = shell("PATH=/nowhere $ATOM bench cpu --shape tiny --plot %s" % path("never.svg")).expect(1, "gnuplot-nox")
    assert r.out == b"" and not [f for f in os.listdir(path("")) if f.startswith("never")]


main()
