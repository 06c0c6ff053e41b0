#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom ablate from outside: the ladder's figures, what is remembered, what is left behind."""
import signal

from clitest import *

SMALL = ["--samples", 2, "--window", 64, "--max-windows", 2]


def ablate(*args, calib=None, **kw):
    return atom("ablate", TINY, text(), "--calib", calib or text(), "-q", *SMALL, *args, **kw)


@once
def ladder():
    """All rungs, their checkpoints kept."""
    return ablate("--keep", path("kept"), "--json").expect(0).lines()


def ppl(model):
    return atom("eval", "ppl", model, text(), "-q", "--json", "--window", 64, "--max-windows", 2).expect(0).json()["ppl"]


@test
def rungs_in_order():
    lines = ladder()
    names = [l["rung"] for l in lines]
    assert names[:2] == ["float", "rtn"] and names[-1] == "asymmetric" and len(set(names)) == len(names) > 10, names
    assert [l["recipe"] for l in lines if l["recipe"]] == ["paper", "default"], lines
    assert lines[0]["change"] is None
    for before, l in zip(lines, lines[1:]):
        assert abs(l["ppl"] - before["ppl"] - l["change"]) < 1e-5 * l["ppl"], l
        assert l["tokens"] == 126 and l["samples"] == 2 and not l["remembered"], l
    assert lines[-1]["scheme"] == {
        "wbits": 4, "abits": 4, "kvbits": 4, "group": 128, "outliers": 64, "outlier_bits": 8, "rows_per_scale": 1,
        "act_clip": 0.9, "weight_clip": 1.0, "clip_search": True, "gptq": True, "kv_rope": "post", "rotate": "qkv",
        "smooth": 0.5, "asymmetric": 0.5}, lines[-1]
    # 256 channels: a quarter of them
    assert {l["scheme"]["outliers"] for l in lines[2:]} == {64}, lines


@test
def figures_are_those_of_quantize_and_eval():
    lines = {l["rung"]: l for l in ladder()}
    assert abs(lines["float"]["ppl"] / ppl(TINY) - 1) < 1e-6, lines["float"]
    for rung, options in (("rtn", ["--recipe", "paper", "--kvbits", 16, "--group", 0, "--outliers", 0, "--act-clip", 1,
                                   "--rows-per-scale", 1, "--weight-clip", 1, "--no-gptq"]),
                          ("groups", ["--recipe", "paper", "--kvbits", 16, "--outliers", 64, "--act-clip", 1,
                                      "--weight-clip", 1, "--no-gptq"]),
                          ("kv", ["--recipe", "paper", "--outliers", 64]), ("asymmetric", [])):
        out = path("same-" + rung)
        atom("quantize", TINY, "-o", out, "--calib", text(), "-q", *SMALL[:4], *options).expect(0)
        assert abs(lines[rung]["ppl"] / ppl(out) - 1) < 1e-6, (rung, lines[rung], ppl(out))


@test
def three_bits():
    r = ablate("--bits", "both", "--only", "float,groups,kv", "--json").expect(0).lines()
    assert [(l["rung"], l["bits"]) for l in r] == [(n, b) for b in (4, 3) for n in ("float", "groups", "kv")], r
    assert [(l["scheme"]["wbits"], l["scheme"]["abits"], l["scheme"]["kvbits"]) for l in r] == [
        (16, 16, 16), (4, 4, 16), (4, 4, 4), (16, 16, 16), (3, 3, 16), (3, 3, 3)], r
    assert r[0]["ppl"] == r[3]["ppl"] and r[4]["ppl"] > r[1]["ppl"] and r[3]["change"] is None, r
    assert [l["recipe"] for l in r] == [None, None, "paper", None, None, None], r


@test
def what_is_there_is_not_done_again():
    first = ladder()
    again = ablate("--keep", path("kept"), "--json").expect(0).lines()
    for a, b in zip(first, again):
        assert b.pop("remembered") and dict(a, remembered=None) == dict(b, remembered=None), (a, b)
    # Scored anew on other windows, of the same checkpoints.
    made = {f: os.stat(path("kept/" + f)).st_mtime for f in os.listdir(path("kept"))}
    more = ablate("--keep", path("kept"), "--json", "--max-windows", 3).expect(0).lines()
    for a, b in zip(first, more):
        assert b["tokens"] == 189 and b["ppl"] != a["ppl"] and not b["remembered"], (a, b)
        assert b["quantize_seconds"] == a["quantize_seconds"], (a, b)
    assert all(os.stat(path("kept/" + f)).st_mtime == t for f, t in made.items() if f != "ablation.json")


@test
def a_damaged_checkpoint_is_made_anew():
    args = ["--keep", path("damaged"), "--only", "rtn,groups", "--json"]
    first = ablate(*args).expect(0).lines()
    folder = path("damaged/w4a4-groups/")
    name = folder + sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))[1]
    data = bytearray(read(name))
    data[-1] ^= 64
    with open(name, "wb") as f:
        f.write(data)
    # What is remembered needs no checkpoint; what is scored anew does.
    assert ablate(*args).expect(0).err == ""
    again = ablate(*args, "--window", 64, "--max-windows", 3).expect(0, "w4a4-groups", "has the checksum", "made anew")
    straight = ablate("--only", "rtn,groups", "--json", "--max-windows", 3).expect(0).lines()
    assert [l["ppl"] for l in again.lines()] == [l["ppl"] for l in straight] and again.err.count("\n") == 1, again
    assert ablate(*args).expect(0).lines()[1]["ppl"] == first[1]["ppl"]


@test
def another_calibration_is_refused():
    ladder()
    other = write("other.txt", read(text()) + b" More.")
    r = ablate("--keep", path("kept"), calib=other).expect(1, "kept/w4a4-rtn was made from another", "another directory")
    assert "Traceback" not in r.err
    ablate("--keep", path("kept"), "--samples", 1).expect(1, "w4a4-rtn")


@test
def one_checkpoint_at_a_time():
    args = ["--work", path("work"), "--json", "--only", "float,rtn,groups"]
    first = ablate(*args).expect(0).lines()
    assert os.listdir(path("work")) == ["ablation.json"], os.listdir(path("work"))
    again = ablate(*args).expect(0).lines()
    assert all(l["remembered"] for l in again) and [l["ppl"] for l in again] == [l["ppl"] for l in first], again
    other = ablate(*args, calib=write("other.txt", read(text())[100:])).expect(0).lines()
    assert other[0]["remembered"] and not other[1]["remembered"], other


@test
def nothing_is_left_in_the_temporary_directory():
    os.mkdir(path("tmp"))
    for extra, rc in ((["--only", "rtn"], 0), (["--only", "float", "--calib", path("none")], 1)):
        r = shell("TMPDIR=%s $ATOM ablate %s %s --calib %s -q %s %s" % (
            path("tmp"), TINY, text(), text(), " ".join(map(str, SMALL)), " ".join(extra))).expect(rc)
        assert os.listdir(path("tmp")) == [], r
    p = subprocess.Popen([ATOM, "--threads", "1", "ablate", TINY, text(), "--calib", text(), "-q", "--window", "128"] +
                         ["--samples", "8"], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                         env=dict(os.environ, TMPDIR=path("tmp")))
    caught = wait_for(lambda: any("-rtn" in f for d in os.listdir(path("tmp")) for f in os.listdir(path("tmp/" + d))), p)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    if not caught:
        raise Skip("the run was too quick to stop")
    assert p.returncode == 1 and b"stopped at" in err and b"goes on" not in err, err
    assert os.listdir(path("tmp")) == []


@test
def a_stopped_run_goes_on():
    whole = ablate("--only", "rtn,groups,gptq", "--json", "--samples", 8).expect(0).lines()
    args = ["ablate", TINY, text(), "--calib", text(), "-q", *SMALL, "--samples", 8, "--json", "--work", path("stopped"),
            "--only", "rtn,groups,gptq"]
    p = start("--threads", 1, *args)
    wait_for(lambda: os.path.exists(path("stopped")) and
             any(f.startswith("w4a4-g") for f in os.listdir(path("stopped"))), p)
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=60)
    if p.returncode == 0:
        raise Skip("the run was too quick to stop")
    assert p.returncode == 1 and b"the same command goes on" in err, (p.returncode, err)
    p = start("--threads", 1, *args)
    time.sleep(0.05)
    p.kill()
    p.communicate(timeout=60)
    lines = atom(*args).expect(0).lines()
    assert lines[0]["remembered"], lines
    assert [l["ppl"] for l in lines] == [l["ppl"] for l in whole], (lines, whole)
    assert os.listdir(path("stopped")) == ["ablation.json"], os.listdir(path("stopped"))


@test
def two_runs_do_not_meet():
    args = ["--work", path("twice"), "--only", "gptq"]
    p = start("--threads", 1, "ablate", TINY, text(), "--calib", text(), "-q", *SMALL, "--samples", 8, *args)
    caught = wait_for(lambda: os.path.exists(path("twice/ablation.json")), p)
    r = ablate(*args)
    _, err = p.communicate(timeout=60)
    if not caught or r.rc == 0:
        raise Skip("the first run was too quick")
    assert p.returncode == 0, err
    r.expect(1, "another run is at work in", "twice")


@test
def for_people():
    ladder()
    r = ablate("--keep", path("kept")).expect(0)
    lines = r.out.decode().splitlines()
    assert r.err == "" and lines[0].startswith("tiny at 4 bits: perplexity of text.txt, 2 windows of 64 tokens"), r
    assert len(lines) == 3 + len(ladder()) + 3 and max(map(len, lines)) <= 120, r
    assert lines[3].split()[:2] == ["float", "16/16/16"] and "row" in lines[4] and "64 FP16" in lines[5] and "64 INT8" in lines[6], r
    assert lines[-1].endswith("64, not 128") and sum(l.endswith(" paper") for l in lines) == 1, r
    shown = [l.split("  ")[0].strip() for l in lines[3:-3]]
    assert shown[4].startswith("+ groups") and all(s.startswith("+") for s in shown[2:]), shown


@test
def progress_says_where_it_is():
    r = atom("ablate", TINY, text(), "--calib", text(), *SMALL, "--only", "rtn,gptq").expect(0)
    assert "1 of 2, w4a4 rtn: quantize" in r.err and "2 of 2, w4a4 gptq: perplexity" in r.err, r


@test
def a_plot():
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    ladder()
    out = path("ladder.svg")
    ablate("--keep", path("kept"), "--plot", out).expect(0)
    svg = read(out).decode()
    for words in ("<svg", "tiny on text.txt", "W4A4", "round to nearest", "recipe paper", "recipe default", "→"):
        assert words in svg, words
    # One rung, no float one to begin at.
    ablate("--only", "kv", "--plot", out).expect(0)
    assert "+ KV cache" in read(out).decode()
    ablate("--keep", path("kept"), "--plot", path("no/ladder.svg")).expect(1, "no/ladder.svg")


@test
def a_plot_without_gnuplot():
    r = shell("PATH=/nowhere $ATOM ablate %s %s --calib %s --plot %s" % (TINY, text(), text(), path("never.svg")))
    r.expect(1, "gnuplot-nox")
    assert r.out == b"" and not os.path.exists(path("never.svg")), "told at the end only"


@test
def what_is_told_before_hours_go_by():
    no_text = write("short.txt", b"A few words.")
    ablate(calib=path("no.txt")).expect(1, "no.txt")
    ablate(calib=no_text).expect(1, "short.txt", "less than one window")
    ablate("--samples", 100000).expect(1, "text.txt", "100000 samples")
    ablate("--window", 4096).expect(1, "2048 positions")
    for model, words in ((quantized(), "quantized already"), (path("no-model"), "no-model")):
        atom("ablate", model, text(), "--calib", text(), "-q", *SMALL).expect(1, words)
    atom("ablate", TINY, no_text, "--calib", text(), "-q", *SMALL).expect(1, "short.txt: ", "less than one window")
    no_utf8 = write("bytes.txt", read(text()) + b"\xff")
    atom("ablate", TINY, no_utf8, "--calib", text(), "-q", *SMALL).expect(1, "bytes.txt: ", "UTF-8")
    ablate(calib=no_utf8).expect(1, "bytes.txt: ", "UTF-8")
    atom("ablate", TINY, path("none.txt"), "--calib", text(), "-q", *SMALL).expect(1, "none.txt: No such file")
    ablate("--keep", path("no/such")).expect(1, "no/such")
    write("a-file", b"x")
    ablate("--keep", path("a-file")).expect(1, "a-file")
    os.mkdir(path("odd"))
    for content in (b"{", b"[]", b"{\"rungs\": 1}"):
        write("odd/ablation.json", content)
        ablate("--keep", path("odd")).expect(1, "odd/ablation.json")


def scale(model, tensor, exponent):
    """Multiplies a BF16 tensor by 2^exponent; what is too small becomes 0."""
    file = os.path.join(model, "model.safetensors")
    data = bytearray(read(file))
    n = int.from_bytes(data[:8], "little")
    t = json.loads(data[8:8 + n])[tensor]
    assert t["dtype"] == "BF16", t
    for at in range(8 + n + t["data_offsets"][0], 8 + n + t["data_offsets"][1], 2):
        x = int.from_bytes(data[at:at + 2], "little")
        e = (x >> 7 & 255) + exponent
        data[at:at + 2] = (x & 0x807f | e << 7 if 0 < e < 255 and x & 0x7fff else 0).to_bytes(2, "little")
    with open(file, "wb") as f:
        f.write(data)


@test
def numbers_that_overflow_are_a_result():
    # Values that float32 holds and half precision does not.
    model = copy_model("large-values")
    scale(model, "model.layers.1.self_attn.v_proj.weight", 24)
    scale(model, "model.layers.1.self_attn.o_proj.weight", -24)
    args = [model, text(), "--calib", text(), "-q", *SMALL, "--only", "float,rtn,groups", "--work", path("overflow")]
    r = atom("ablate", *args, "--json").expect(0, "not finite", "layer 1")
    lines = r.lines()
    assert abs(lines[0]["ppl"] / ppl(TINY) - 1) < 1e-3, lines
    assert [l["ppl"] for l in lines[1:]] == [None] * 2 and lines[1]["change"] is None, lines
    assert not os.path.exists(path("overflow/w4a4-rtn"))
    out = atom("ablate", *args, *(["--plot", path("overflow.svg")] if shutil.which("gnuplot") else [])).expect(0).out
    assert out.count(b"not finite") == 2, out
    # In the float model itself they are an error.
    scale(model, "model.layers.1.self_attn.v_proj.weight", 100)
    atom("ablate", *args).expect(1, "layer 1")


@test
def a_model_that_cannot_be_rotated():
    model = copy_model("odd-heads")
    set_config(model, head_dim=28, num_attention_heads=2)
    atom("ablate", model, text(), "--calib", text(), "-q", *SMALL).expect(1, "rung 'rotate-qk'", "head size", "28")


@test
def plots_spare_texts():
    file = write("spare.txt", read(text()))
    atom("ablate", TINY, file, "--calib", text(), "--plot", file).expect(2, "would overwrite")
    assert read(file) == read(text())


main()
