#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval --schemes: its numbers are those of the single commands; kept checkpoints, runs that stop, refusals."""
import signal

from clitest import *

SMALL = ["--samples", "3", "--window", "64"]
MEASURED = ["--max-windows", "2", "--limit", "2"]


def schemes(names, *args, model=TINY):
    return atom("eval", "--schemes", names, model, "--calib", text(), "-q", "--json", *SMALL, *MEASURED, *args)


def lasting(lines):
    """All but how long things took."""
    return [{k: v for k, v in l.items() if k not in ("quantize_seconds", "prefill_tokens_a_second")} for l in lines]


@once
def items():
    lines = [{"context": "The king went", "choices": [" home", " of"], "gold": 0},
             {"context": "", "choices": ["She was.", "Was she of."], "gold": 1}]
    return write("items.jsonl", "".join(json.dumps(l) + "\n" for l in lines))


@once
def whole():
    return schemes("w8a8,kv4", "--keep", path("whole"), "--tasks", items(), text()).expect(0).lines()


@test
def numbers_are_those_of_single_commands():
    rows = whole()
    assert [r["scheme"] for r in rows] == ["float", "w8a8", "kv4"], rows
    assert [(r["wbits"], r["abits"], r["kvbits"]) for r in rows] == [(16, 16, 16), (8, 8, 16), (16, 16, 4)], rows
    for r in rows:
        model = TINY if r["scheme"] == "float" else os.path.join(path("whole"), r["scheme"])
        seen = atom("inspect", model, "--json").expect(0).json()
        assert r["bytes"] == seen["bytes"]["total"] and abs(r["bits_per_weight"] - seen["bits_per_weight"]) < 1e-9, r
        args = ["--window", 64, "--max-windows", 2, "--json", "-q"]
        ppl = atom("eval", "ppl", model, text(), *args).expect(0).json()
        kld = atom("eval", "kld", TINY, model, text(), *args).expect(0).json()
        t, = r["texts"]
        assert abs(t["ppl"] / ppl["ppl"] - 1) < 1e-6 and t["tokens"] == ppl["tokens"] == 126, (t, ppl)
        assert t["kl"] == kld["kl"]["mean"] and t["top1"] == kld["top1"], (t, kld)
        task = atom("eval", "tasks", model, items(), "--json", "-q").expect(0).json()
        assert r["tasks"][0]["acc"] == task["acc"] and r["tasks"][0]["n"] == 2, (r, task)
        assert r["prefill_tokens_a_second"] > 0, r
    assert rows[0]["texts"][0]["kl"] == 0 < rows[1]["texts"][0]["kl"], rows
    assert rows[1]["bytes"] < rows[2]["bytes"] and rows[2]["kv_bytes_per_token"] < rows[0]["kv_bytes_per_token"], rows


@test
def kept_checkpoints_are_those_of_quantize():
    whole()
    atom("quantize", TINY, "-o", path("w8a8"), "--calib", text(), "--scheme", "w8a8", "-q", *SMALL).expect(0)
    for f in os.listdir(path("w8a8")):
        if f != "atom_report.json":
            assert read(os.path.join(path("w8a8"), f)) == read(os.path.join(path("whole"), "w8a8", f)), f


@test
def what_quantize_made_is_taken_over():
    names = ("kv3", "w8a8-smooth", "w4a16-awq", "mxfp4", "paper", "default")
    os.mkdir(path("by-hand"))
    for name in names:
        out = path("by-hand/" + {"default": "w4a4kv4"}.get(name, name))
        atom("quantize", TINY, "-o", out, "--calib", text(), "--scheme", name, "-q", *SMALL).expect(0)
    rows = schemes(",".join(names), "--keep", path("by-hand"), text()).expect(0).lines()
    assert [r["quantize_seconds"] for r in rows] == [0] * 7, rows


@test
def a_second_run_makes_nothing_anew():
    first = whole()
    before = {s: os.stat(os.path.join(path("whole"), s)).st_ino for s in ("w8a8", "kv4")}
    again = schemes("w8a8,kv4", "--keep", path("whole"), "--tasks", items(), text()).expect(0).lines()
    assert lasting(again) == lasting(first), (again, first)
    assert [r["quantize_seconds"] for r in again] == [0, 0, 0], again
    assert before == {s: os.stat(os.path.join(path("whole"), s)).st_ino for s in before}


@test
def a_stopped_run_goes_on():
    for sig, done in ((signal.SIGINT, 1), (signal.SIGKILL, 2)):
        keep = path("stopped-%d" % done)
        p = start("--threads", 1, "eval", "--schemes", "w8a8,w4a4kv4", TINY, "--calib", text(), "-q", "--json", *SMALL,
                  *MEASURED, "--keep", keep, text())

        def layers():
            try:
                return len(json.loads(read(keep + "/w4a4kv4.partial/atom_state.json"))["done"])
            except (OSError, ValueError):
                return -1
        caught = wait_for(lambda: layers() >= done, p)
        p.send_signal(sig)
        err = p.communicate(timeout=120)[1].decode()
        if not caught or p.returncode == 0:
            raise Skip("the run was too quick to stop")
        assert sig == signal.SIGKILL or "w4a4kv4: stopped; the same command goes on" in err, err
        assert not os.path.exists(keep + "/w4a4kv4") and os.path.exists(keep + "/w8a8")
        rows = schemes("w8a8,w4a4kv4", "--keep", keep, text()).expect(0).lines()
        straight = schemes("w8a8,w4a4kv4", text()).expect(0).lines()
        assert lasting(rows) == lasting(straight), (rows, straight)
        assert not os.path.exists(keep + "/w4a4kv4.partial")


@test
def checkpoints_of_other_inputs_are_refused():
    whole()
    other = write("other.txt", read(text()) + b" And more.")
    args = ["eval", "--schemes", "w8a8", TINY, "-q", "--json", *MEASURED, "--keep", path("whole"), text()]
    atom(*args, "--calib", other, *SMALL).expect(1, "w8a8", "another calibration text")
    atom(*args, "--calib", text(), "--samples", 2, "--window", 64).expect(1, "w8a8", "other options")
    copy = copy_model("copy")
    file = os.path.join(copy, "config.json")
    with open(file, "ab") as f:
        f.write(b"\n")
    atom("eval", "--schemes", "w8a8", copy, "--calib", text(), "-q", *SMALL, *MEASURED, "--keep", path("whole"),
         text()).expect(1, "another model")
    os.remove(os.path.join(path("whole"), "kv4", "atom_report.json"))
    schemes("kv4", "--keep", path("whole"), text()).expect(1, "does not say what it was made of")


@test
def without_keep_nothing_stays():
    os.mkdir(path("tmp"))
    r = shell("TMPDIR=%s $ATOM eval --schemes=kv8 %s --calib %s -q --samples 1 --window 32 --max-windows 1 %s"
              % (path("tmp"), TINY, text(), text()))
    assert r.rc == 0 and os.listdir(path("tmp")) == [], r
    lines = r.out.decode().splitlines()
    assert lines[0].split()[0] == "scheme" and [l.split()[0] for l in lines[2:]] == ["float", "kv8"], r
    bad = write("bad.txt", b"too short")
    r = shell("TMPDIR=%s $ATOM eval --schemes=kv8 %s --calib %s -q --samples 1 --window 32 %s" % (path("tmp"), TINY, text(), bad))
    assert r.rc == 1 and "bad.txt" in r.err and os.listdir(path("tmp")) == [], r


@test
def refusals():
    for args, words in ((["w9a9"], ["w9a9", "w8a8"]), ([","], ["w8a8"]), ([""], ["names none"])):
        atom("eval", "--schemes", *args, TINY, "--calib", text(), text()).expect(2, *words)
    atom("eval", "--schemes", "w8a8", TINY, text()).expect(2, "--calib FILE is missing")
    atom("eval", "--schemes", "w8a8", TINY, "--calib", text()).expect(2, "a TEXT is missing")
    atom("eval", "--schemes", "w8a8", TINY, "--calib", text(), "--calib-ids", "x", text()).expect(2, "exclude")
    schemes("w8a8", text(), model=quantized()).expect(1, "quantized already")
    schemes("w8a8", path("no.txt")).expect(1, "no.txt")
    schemes("w8a8", text(), "--tasks", text()).expect(1, "text.txt")
    schemes("w8a8", text(), "--keep", text()).expect(1, "text.txt: Not a directory")


@test
def schemes_named_twice():
    schemes("w8a8,kv8,w8a8", text()).expect(2, "'w8a8' is named twice")
    schemes("default,w4a4kv4", text()).expect(2, "'w4a4kv4' (or 'default') is named twice")
    schemes("w4a16,w4a16", text()).expect(2, "'w4a16-gptq' (or 'w4a16') is named twice")


@test
def everything_is_looked_at_before_anything_is_measured():
    whole()
    keep, short = path("whole"), write("short.txt", b"Few words.")
    bad_items = write("bad.jsonl", read(items()) + b"x\n")
    for args, words in ((["--calib", path("no.txt"), text()], "no.txt"), (["--calib", short, text()], "short.txt"),
                        (["--calib-ids", short, text()], "short.txt"), ([text(), short], "short.txt"),
                        ([text(), "--tasks", items(), "--tasks", bad_items], "bad.jsonl: line 3"),
                        ([text(), "--keep", keep, "--samples", 1], "other options")):
        calib = [] if args[0].startswith("--calib") else ["--calib", text()]
        for form in ([], ["--json"]):
            r = atom("eval", "--schemes", "kv8,w8a8", TINY, "-q", *SMALL, *MEASURED, *calib, *args, *form)
            assert r.expect(1, words).out == b"", r


@test
def what_lies_in_the_way_is_told_first():
    for name, make in (("foreign", lambda p: (os.makedirs(p + "/w8a8.partial"), write("in-way/foreign/w8a8.partial/thesis", b"x"))),
                       ("dangling", lambda p: (os.makedirs(p), os.symlink("nowhere", p + "/w8a8"))),
                       ("file", lambda p: (os.makedirs(p), write("in-way/file/w8a8", b"x"))),
                       ("folder", lambda p: os.makedirs(p + "/w8a8/thesis"))):
        keep = path("in-way/" + name)
        make(keep)
        r = schemes("w8a8", "--keep", keep, text()).expect(1, "atom: w8a8: ", keep + "/w8a8")
        assert r.out == b"", r


@test
def damaged_checkpoints_are_made_anew():
    keep = path("damaged")
    first = schemes("w8a8,kv8", "--keep", keep, text()).expect(0).lines()
    weights = sorted(f for f in os.listdir(keep + "/w8a8") if f.endswith(".safetensors"))
    for file in (weights[1], "config.json", "tokenizer.json", weights[-1]):
        name = os.path.join(keep, "w8a8", file)
        data = bytearray(read(name))
        data[-20] ^= 1
        if file == weights[-1]:
            data = data[:-1]
        with open(name, "wb") as f:
            f.write(data)
        r = schemes("w8a8,kv8", "--keep", keep, text()).expect(0, "damaged/w8a8: %s has" % file, "made anew")
        assert r.err.count("\n") == 1 and lasting(r.lines()) == lasting(first), r
        assert [l["quantize_seconds"] > 0 for l in r.lines()] == [False, True, False], r
        again = schemes("w8a8,kv8", "--keep", keep, text()).expect(0)
        assert again.err == "" and [l["quantize_seconds"] for l in again.lines()] == [0, 0, 0], again
    # One without checksums cannot be told from a damaged one.
    report = os.path.join(keep, "kv8", "atom_report.json")
    without = json.loads(read(report))
    del without["files"]
    with open(report, "w") as f:
        json.dump(without, f)
    schemes("kv8", "--keep", keep, text()).expect(0, "damaged/kv8", "no checksums", "made anew")


@test
def two_runs_do_not_share_a_folder():
    keep = path("shared")
    p = start("--threads", 1, "eval", "--schemes", "w4a4kv4", TINY, "--calib", text(), "-q", *SMALL, *MEASURED, "--keep",
              keep, text())
    caught = wait_for(lambda: os.path.exists(keep), p)
    time.sleep(0.02)
    r = schemes("w8a8", "--keep", keep, text())
    _, err = p.communicate(timeout=120)
    if not caught or r.rc == 0:
        raise Skip("the first run was too quick")
    r.expect(1, "another run is at work in", "shared")
    assert p.returncode == 0, err


@test
def the_default_list_is_told():
    page = atom("eval", "schemes", "--help").expect(0).out.decode()
    names = page.split("without --schemes: ")[1].split()[0].split(",")
    assert "usage: atom eval schemes --calib FILE" in page and "w4a4kv4" in names, page
    keep = path("defaults")
    r = atom("eval", "schemes", TINY, "--calib", text(), "-q", "--json", "--samples", 1, "--window", 32, "--max-windows", 1,
             "--keep", keep, text()).expect(0)
    assert [l["scheme"] for l in r.lines()] == ["float"] + names and sorted(os.listdir(keep)) == sorted(names), r
    assert "`" + ",".join(names) + "`" in read("docs/schemes.md").decode(), "the page has another list"


main()
