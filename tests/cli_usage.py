#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Help, usage errors, bad values, files that are not there or not what they should be."""
import re

from clitest import *


# Words in front of options; each measure of eval and each device of bench has its own.
PAGES = [[c] for c in COMMANDS if c not in ("eval", "bench")]
PAGES += [["eval", "ppl"], ["eval", "kld"], ["eval", "tasks"], ["eval", "schemes"], ["bench", "cpu"], ["bench", "gpu"]]


def options_of(words):
    """[(name, ARG or None)] as --help lists them."""
    r = atom(*words, "--help").expect(0)
    found = re.findall(r"^  (?:-\w,|   ) --([\w-]+)(?: (\S+))?", r.out.decode(), re.M)
    assert ("help", "this") in found or any(n == "help" for n, _ in found), found
    page = [(n, a or None) for n, a in found if n != "help"]
    # What stands two spaces after the name is the explanation, not the value's name.
    lines = r.out.decode().splitlines()
    return [(n, a if any("--%s %s" % (n, a) in l for l in lines) else None) for n, a in page]


@test
def help_of_every_command():
    page = atom("--help").expect(0).out.decode()
    for c in COMMANDS:
        assert c in page, c
    for words in PAGES + [["eval"], ["bench"]]:
        for flag in ("--help", "-h"):
            r = atom(*words, flag).expect(0)
            assert r.out.startswith(b"usage: atom " + " ".join(words).encode()), r
            assert r.err == "", r
            assert max(len(l) for l in r.out.decode().splitlines()) <= 120, r


@test
def version():
    assert re.match(rb"atom \d+\.\d+\.\d+, (scalar|avx2|avxvnni|avx512), \d+ threads\n$", atom("--version").expect(0).out)
    assert b"scalar, 1 threads" in atom("--cpu", "scalar", "--threads", 1, "--version").expect(0).out


@test
def usage_errors_of_the_program():
    atom().expect(2, "a command is missing")
    atom("frobnicate").expect(2, "frobnicate")
    atom("--frobnicate").expect(2, "--frobnicate")
    atom("--threads").expect(2, "--threads")
    for n in ("0", "-1", "x", "", "1.5", "99999999999"):
        atom("--threads", n, "--version").expect(2, "--threads")
    atom("--cpu", "z80", "--version").expect(2, "z80")


@test
def schemes_are_listed():
    r = atom("quantize", "--scheme", "list").expect(0)
    names = [l.split()[0].rstrip(",") for l in r.out.decode().splitlines()]
    assert "w4a4kv4" in names and "w8a8" in names and "paper" in names, names
    assert r.out in atom("quantize", "--help").expect(0).out


@test
def usage_errors_of_commands():
    for c in COMMANDS:
        atom(c).expect(2, "argument is missing", "--help")
        atom(c, "--frobnicate").expect(2, "--frobnicate")
        atom(c, "-Z").expect(2, "-Z")
        if c != "eval":
            atom(c, "a", "b", "c").expect(2, "too many arguments")
    atom("quantize", TINY, "--calib", "x").expect(2, "-o OUT is missing")
    atom("quantize", TINY, "-o", path("o")).expect(2, "--calib FILE is missing")
    atom("quantize", TINY, "-o", path("o"), "--calib", "x", "--calib-ids", "y").expect(2, "exclude")
    atom("quantize", TINY, "-o", path("o"), "--calib", "x", "--recipe", "soup").expect(2, "soup")
    atom("quantize", TINY, "-o", path("o"), "--calib", "x", "--scheme", "w5a5").expect(2, "w5a5", "w8a8", "paper")
    atom("eval", "bleu", TINY, "x").expect(2, "bleu")
    for measure in ("ppl", "tasks"):
        atom("eval", measure).expect(2, "argument is missing", "eval %s --help" % measure)
        atom("eval", measure, TINY).expect(2, "argument is missing")
    atom("generate", TINY).expect(2, "--prompt TEXT is missing")
    atom("generate", TINY, "--prompt", "x", "--prompt-file", "y").expect(2, "exclude")
    atom("generate", TINY, "--prompt", "x", "--stop", "").expect(2, "--stop")
    atom("generate", TINY, "--prompt", "x", *["--stop", "s"] * 17).expect(2, "16 times")
    atom("sample-calib", TINY).expect(2, "-o FILE is missing")
    atom("ablate", TINY, "x").expect(2, "--calib FILE is missing")
    atom("ablate", TINY, "x", "--calib", "y", "--keep", "a", "--work", "b").expect(2, "exclude")
    for names in ("soup", "rtn,soup", "rtn,", "", "group"):
        atom("ablate", TINY, "x", "--calib", "y", "--only", names).expect(2, "no rung '%s'" % names.split(",")[-1])


@test
def bad_values_of_every_option():
    numbers = {"N", "T", "B", "G", "O", "C", "R", "X", "P", "K", "S"}
    seen = 0
    for c in PAGES:
        for name, arg in options_of(c):
            seen += 1
            flag = "--" + name
            if arg is None:
                atom(*c, flag + "=1").expect(2, flag, "takes no value")
                continue
            atom(*c, flag).expect(2, flag, "needs a value")
            if arg in numbers:
                for bad in ("abc", "", "-1", "1x", "nan", "inf", "1e99", "0x", "--json"):
                    atom(*c, flag, bad).expect(2, flag, bad)
                if arg not in ("R", "X", "P"):
                    atom(*c, flag + "=1.5").expect(2, flag, "1.5")
            elif "|" in arg:
                for bad in ("abc", "", arg, arg[:2]):
                    atom(*c, flag, bad).expect(2, flag)
    assert seen > 45, "only %d options were found" % seen


@test
def numbers_that_only_the_scheme_refuses():
    for option, value in (("--wbits", 5), ("--abits", 7), ("--kvbits", 12), ("--lm-head-bits", 9)):
        r = atom("quantize", TINY, "-o", path("never"), "--calib", text(), "--samples", 2, "--window", 32, "-q", option,
                 value)
        r.expect(1, str(value))
    assert not os.path.exists(path("never")) and not os.path.exists(path("never.partial"))


def each_opener(model):
    return [atom("inspect", model), atom("tokenize", model), atom("generate", model, "--prompt", "x"),
            atom("eval", "ppl", model, text()), atom("eval", "tasks", model, text()), atom("sample-calib", model, "-o", path("never.jsonl")),
            atom("quantize", model, "-o", path("never"), "--calib", text())]


@test
def models_that_are_none():
    os.mkdir(path("empty-directory"))
    for model in (path("nothing"), path("empty-directory"), text(), "/dev/null", ""):
        for r in each_opener(model):
            r.expect(1)
            assert r.err.startswith("atom: ") and r.err.count("\n") == 1, r
    assert not [f for f in os.listdir(path("")) if f.startswith("never")]


@test
def models_that_are_broken():
    model = copy_model("broken")
    weights = os.path.join(model, "model.safetensors")
    whole = read(weights)
    for data in (b"", whole[:7], whole[:100], whole[:-1], b"\xff" * 64):
        write("broken/model.safetensors", data)
        for r in (atom("inspect", model), atom("generate", model, "--prompt", "x")):
            r.expect(1, "model.safetensors")
    write("broken/model.safetensors", whole)
    for data in (b"", b"{", b"[]", b"\xff", b'{"model_type": "gpt2"}'):
        write("broken/config.json", data)
        atom("inspect", model).expect(1, "config.json")


@test
def unknown_tensors():
    model = copy_model("unknown")
    name = "model.layers.0.self_attn.q_norm.weight"
    add_tensor(model, "model.layers.2.self_attn.rotary_emb.inv_freq", (64,))
    atom("generate", model, "--prompt", "x", "--max-tokens", 1).expect(0)
    add_tensor(model, name, (128,))
    atom("generate", model, "--prompt", "x").expect(1, name)
    atom("quantize", model, "-o", path("never"), "--calib", text(), "-q").expect(1, name)
    tensors = atom("inspect", model, "--json").expect(0).json()["tensors"]
    assert [t["kind"] for t in tensors if t["name"] == name] == ["unknown"]
    for name in ("model.layers.4.input_layernorm.weight", "model.layers.0.self_attn.q_proj.bias",
                 "model.layers.00.input_layernorm.weight", "model.layers.0.self_attn.q_proj.qweight",
                 "model.layers.0.attn_in.order", "lm_head.bias", "score.weight"):
        other = copy_model("unknown-" + name)
        add_tensor(other, name)
        atom("generate", other, "--prompt", "x").expect(1, name)


@test
def texts_that_are_none():
    bad, empty = write("bad.txt", b"abc \xff\xfe def"), write("empty.txt", b"")
    atom("eval", "ppl", TINY, bad).expect(1, "bad.txt", "UTF-8", "4")
    atom("eval", "ppl", TINY, empty).expect(1, "empty.txt", "less than one window")
    atom("eval", "ppl", TINY, path("no.txt")).expect(1, "no.txt: No such file")
    atom("eval", "ppl", TINY, path("")).expect(1, "directory")
    atom("eval", "ppl", TINY, text(), "--window", 1 << 20).expect(1)
    atom("quantize", TINY, "-o", path("never"), "--calib", bad, "-q").expect(1, "UTF-8")
    atom("quantize", TINY, "-o", path("never"), "--calib", empty, "-q").expect(1, "less than one window")
    atom("quantize", TINY, "-o", path("never"), "--calib", path("no.txt"), "-q").expect(1, "no.txt")
    atom("quantize", TINY, "-o", path("never"), "--calib", text(), "--window", 1 << 20).expect(1, "2048")
    atom("quantize", TINY, "-o", path("never"), "--calib", text(), "--samples", 1 << 20).expect(1)
    atom("sample-calib", TINY, "-o", path("never"), "--window", 2049).expect(1, "2048")
    atom("generate", TINY, "--prompt", b"abc\xff").expect(1, "UTF-8", "3")
    atom("generate", TINY, "--prompt-file", path("no.txt")).expect(1, "no.txt")
    atom("generate", TINY, "--prompt-file", bad).expect(1, "UTF-8")
    atom("generate", TINY, "--prompt", "x", "--stop", b"\xff").expect(1, "stop", "UTF-8")
    assert not [f for f in os.listdir(path("")) if f.startswith("never")]


@test
def windows_of_ids_that_are_none():
    for data, word in ((b"", "0 windows"), (b"{\n", "line 1"), (b'{"ids": 5}\n', "line 1"),
                       (b'{"ids": [1, 2]}\n', "at least 4"), (b'{"ids": [1, 2, 3, 4096]}\n', "entry 3"),
                       (b'{"ids": [1, 2, 3, -1]}\n', "entry 3"), (b'{"ids": [1, 2, 3, 1.5]}\n', "entry 3")):
        file = write("ids.jsonl", data)
        atom("quantize", TINY, "-o", path("never"), "--calib-ids", file, "--samples", 1, "--window", 4, "-q").expect(
            1, "ids.jsonl", word)


@test
def standard_output_that_is_lost():
    lines = path("texts.jsonl")
    write("texts.jsonl", b'{"text": "a"}\n')
    commands = ["--help", "--version", "generate %s --prompt x --max-tokens 4" % TINY,
                "generate %s --prompt x --max-tokens 4 --json" % TINY, "inspect %s" % TINY, "inspect %s --json" % TINY,
                "tokenize %s < %s" % (TINY, lines), "eval ppl %s --window 64 --max-windows 1 %s" % (TINY, text()),
                "eval ppl %s --window 64 --max-windows 1 --json %s" % (TINY, text()),
                "eval kld %s %s --window 64 --max-windows 1 %s" % (TINY, TINY, text()),
                "eval kld %s %s --window 64 --max-windows 1 --json %s" % (TINY, TINY, text())]
    commands += [c + " --help" for c in COMMANDS]
    for c in commands:
        shell("$ATOM %s > /dev/full" % c).expect(1, "standard output: ")
        shell("$ATOM %s >&-" % c).expect(1, "standard output: ")
    # Closed streams must not let a file that is made take their numbers.
    out = path("closed.jsonl")
    shell("$ATOM sample-calib %s --samples 1 --window 8 -o %s <&- >&- 2>&-" % (TINY, out))
    assert len(json.loads(read(out))["ids"]) == 8


@test
def files_that_are_not_there_are_told_before_others_are_scored():
    good = write("good.jsonl", '{"context": "a", "continuation": " b"}\n')
    for args in (["ppl", TINY, text()], ["kld", TINY, TINY, text()]):
        r = atom("eval", *args, path("no.txt"), "--window", 64, "--max-windows", 1, "-q").expect(1, "no.txt: No such file")
        assert r.out == b"", r
    for more in ([path("no.txt")], ["--labels", path("no.txt")], ["-k", 1, "--examples", path("no.txt")]):
        r = atom("eval", "tasks", TINY, good, *more, "-q").expect(1, "no.txt: No such file")
        assert r.out == b"", r
    assert atom("eval", "tasks", TINY, good, path(""), "-q").expect(1, "directory").out == b""


@test
def usage_lines_have_what_must_be_given():
    for words, must in ((["quantize"], "--calib FILE"), (["quantize"], "-o OUT"), (["ablate"], "--calib FILE"),
                        (["eval", "schemes"], "--calib FILE"), (["sample-calib"], "-o FILE")):
        line = atom(*words, "--help").expect(0).out.decode().splitlines()[0]
        assert must in line, line


@test
def a_lost_result_stops_the_work():
    """Nobody wants to wait for hours for figures that cannot be printed."""
    file = write("one.jsonl", '{"context": "a", "continuation": " b"}\n')
    few = ["--samples", 1, "--window", 64, "--max-windows", 2]
    for args in (["eval", "ppl", TINY, text(), text(), text(), "--window", 64], ["eval", "tasks", TINY, file, file, file],
                 ["eval", "kld", TINY, TINY, text(), text(), "--window", 64],
                 ["eval", "schemes", "-s", "w8a8,kv8", TINY, text(), "--calib", text(), *few, "--keep", path("lost")],
                 ["ablate", TINY, text(), "--calib", text(), *few, "--only", "rtn,groups,gptq", "--work", path("lost-work")]):
        with open(full_device(), "wb") as f:
            r = atom(*args, "-q", stdout=f).expect(1, "standard output: ")
        assert "stopped" in r.err or "tasks" in args, r
    assert os.listdir(path("lost")) == [] and len(json.loads(read(path("lost-work/ablation.json")))["rungs"]) < 3


@test
def outputs_spare_the_model():
    model = copy_model("spared")
    for args in (["sample-calib", model, "--samples", 1, "--window", 4, "-o"],
                 ["inspect", model, "--calib", text(), "--window", 64, "--plot"],
                 ["ablate", model, text(), "--calib", text(), "--window", 64, "--samples", 1, "--plot"]):
        for name in ("config.json", "model.safetensors"):
            before = read(os.path.join(model, name))
            for spelled in (os.path.join(model, name), os.path.join(model, ".", name)):
                atom(*args, spelled).expect(2, "would overwrite a file of the model")
            assert read(os.path.join(model, name)) == before
    atom("sample-calib", model, "--samples", 1, "--window", 4, "-q", "-o", os.path.join(model, "calib.jsonl")).expect(0)


main()
