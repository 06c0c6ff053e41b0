#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom quantize: what a run that is killed, stopped or out of space leaves, and how the next one goes on."""
import signal

from clitest import *

SMALL = ["--samples", "6", "--window", "96"]
TINIER = ["--samples", "1", "--window", "40"] # for the scalar tier


def quantize(out, *args, source=TINY, before=()):
    return atom(*before, "quantize", source, "-o", path(out), "--calib", text(), "-q", *SMALL, *args)


def files_of(directory):
    """Name to content; the report without how long things took."""
    found = {f: read(os.path.join(directory, f)) for f in os.listdir(directory)}
    report = json.loads(found["atom_report.json"])
    for line in report["linears"]:
        del line["seconds"]
    found["atom_report.json"] = json.dumps(report)
    return found


def same_files(a, b):
    a, b = files_of(a), files_of(b)
    assert sorted(a) == sorted(b), (sorted(a), sorted(b))
    for name in a:
        assert a[name] == b[name], name


@once
def whole():
    quantize("whole").expect(0)
    return path("whole")


def layers_done(out):
    try:
        return len(json.loads(read(path(out) + ".partial/atom_state.json"))["done"])
    except (OSError, ValueError):
        return -1


def stop_within(out, layers, sig, *args):
    """Starts a run and sends the signal once so many layers are done. False: it was too quick."""
    p = start("--threads", 1, "quantize", TINY, "-o", path(out), "--calib", text(), "-q", *SMALL, *args)
    caught = wait_for(lambda: layers_done(out) >= layers, p)
    p.send_signal(sig)
    _, err = p.communicate(timeout=120)
    return caught and p.returncode != 0, p.returncode, err.decode()


@test
def from_quantize_to_text():
    model = whole()
    assert not os.path.exists(model + ".partial")
    for name in ("config.json", "tokenizer.json", "atom_report.json", "model.safetensors.index.json"):
        assert os.path.exists(os.path.join(model, name)), name
    assert not os.path.exists(os.path.join(model, "atom_state.json"))
    r = atom("eval", "ppl", model, text(), "--window", 128, "--max-windows", 4, "--json", "-q").expect(0)
    ppl = r.json()["ppl"]
    assert 1 < ppl < 1000, ppl
    r = atom("generate", model, "--prompt", "The", "--max-tokens", 8, "--json").expect(0).json()
    assert r["text"] and len(r["ids"]) <= 8
    assert atom("inspect", model, "--json").expect(0).json()["quantized"]


@test
def simulated_formats_are_models_too():
    ways = {"fp4": ([], "fp4, simulated in float32", "64 channels in E4M3"),
            "nvfp4": ([], "nvfp4, simulated in float32", "64 channels in E4M3"),
            "mxfp4": (["--outliers", 0], "mxfp4, simulated in float32", "none"),
            "paper": (["--outlier-bits", 16], "int, simulated in float32", "128 channels in half precision")}
    for scheme, (options, *rows) in ways.items():
        out = path("as-" + scheme)
        atom("quantize", TINY, "-o", out, "--calib", text(), "-q", *TINIER, "--scheme", scheme, *options).expect(0)
        page = atom("inspect", out).expect(0).out.decode()
        for row in rows:
            assert row in page, (scheme, row, page)
        q = atom("inspect", out, "--json").expect(0).json()["scheme"]
        assert q.get("format", "paper") == scheme, q
        r = atom("eval", "ppl", out, text(), "--window", 128, "--max-windows", 2, "--json", "-q").expect(0)
        assert 1 < r.json()["ppl"] < 1000, (scheme, r.json()["ppl"])
        assert atom("generate", out, "--prompt", "The", "--max-tokens", 4, "--json").expect(0).json()["text"]


@test
def formats_fix_their_groups():
    out = ["quantize", TINY, "-o", path("wrong"), "--calib", text(), *TINIER]
    atom(*out, "--format", "nvfp4").expect(1, "nvfp4: a group is 16 channels, not 128")
    atom(*out, "--format", "mxfp4", "--group", 32, "--rows-per-scale", 2).expect(1, "mxfp4: a scale is one row's")
    atom(*out, "--format", "fp4", "--abits", 8).expect(1, "fp4: abits may be 16, 4, not 8")
    atom(*out, "--outlier-bits", 12).expect(1, "outlier_bits may be 16, 8, not 12")
    atom(*out, "--format", "fp8").expect(2, "--format")
    assert not os.path.exists(path("wrong"))


@test
def same_files_again_and_on_tiers():
    quantize("again").expect(0)
    same_files(whole(), path("again"))
    quantize("fast", *TINIER).expect(0)
    quantize("scalar", *TINIER, before=["--cpu", "scalar"]).expect(0)
    same_files(path("fast"), path("scalar"))


@test
def tier_with_bits_of_its_own():
    r = quantize("own", *TINIER, before=["--cpu", "avx512bf16"]).expect(1)
    assert "another checkpoint" in r.err or "has no avx512bf16" in r.err, r.err
    assert not os.path.exists(path("own"))


@test
def same_files_on_threads():
    for threads in (1, 2, 3):
        quantize("threads-%d" % threads, before=["--threads", threads]).expect(0)
        same_files(whole(), path("threads-%d" % threads))


@test
def words_to_standard_error_only():
    r = atom("quantize", TINY, "-o", path("words"), "--calib", text(), *SMALL)
    r.expect(0, "down_proj", "is ready", "layer")
    assert r.out == b"", r
    r = quantize("quiet")
    assert r.expect(0).err == "" and r.out == b"", r


@test
def a_killed_run_goes_on():
    for layers in range(4):
        out = "killed-%d" % layers
        ok, rc, err = stop_within(out, layers, signal.SIGKILL)
        assert not os.path.exists(path(out)) or not ok, "a killed run left OUT"
        if not ok:
            raise Skip("the run was too quick to kill after layer %d" % layers)
        assert rc == -signal.SIGKILL
        assert layers_done(out) >= layers
        quantize(out, "--resume").expect(0)
        assert not os.path.exists(path(out) + ".partial")
        same_files(whole(), path(out))


@test
def a_run_killed_many_times_goes_on():
    out, delay, kills = "killed-often", 0.02, 0
    while not os.path.exists(path(out)):
        p = start("--threads", 1, "quantize", TINY, "-o", path(out), "--calib", text(), "-q", *SMALL, "--resume")
        try:
            p.communicate(timeout=delay)
            assert p.returncode == 0, p.returncode
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            kills += 1
        delay *= 1.3
    assert kills > 3, kills
    same_files(whole(), path(out))


@test
def without_resume_a_run_begins_anew():
    ok, _, _ = stop_within("anew", 2, signal.SIGKILL)
    if not ok:
        raise Skip("the run was too quick to kill")
    quantize("anew").expect(0)
    same_files(whole(), path("anew"))


@test
def resume_without_a_run_is_a_run():
    quantize("fresh", "--resume").expect(0)
    same_files(whole(), path("fresh"))


@test
def resume_with_other_inputs_is_refused():
    ok, _, _ = stop_within("other", 1, signal.SIGKILL)
    if not ok:
        raise Skip("the run was too quick to kill")
    before = layers_done("other")
    for option in (["--wbits", "8"], ["--samples", "5"], ["--window", "95"], ["--no-gptq"], ["--outliers", "16"],
                   ["--act-clip", "0.8"], ["--outlier-bits", "16"], ["--format", "fp4"], ["--kv-rope", "pre", "--rotate", "v"], ["--lm-head-bits", "8"]):
        quantize("other", "--resume", *option).expect(1, "cannot be resumed", "other options")
    text_2 = write("other-text.txt", b"x" + read(text()))
    args = ["quantize", "-o", path("other"), "-q", *SMALL, "--resume"]
    atom(*args, TINY, "--calib", text_2).expect(1, "cannot be resumed", "another calibration text")
    model = copy_model("other-model")
    add_tensor(model, "model.layers.0.self_attn.rotary_emb.inv_freq")
    atom(*args, model, "--calib", text()).expect(1, "cannot be resumed", "another model")
    assert layers_done("other") == before
    quantize("other", "--resume").expect(0)
    same_files(whole(), path("other"))


@test
def an_interrupt_says_so():
    for sig in (signal.SIGINT, signal.SIGTERM):
        out = "stopped-%d" % sig
        ok, rc, err = stop_within(out, 1, sig)
        if not ok:
            raise Skip("the run was too quick to stop")
        assert rc == 1 and err.startswith("atom: ") and err.count("\n") == 1, (rc, err)
        assert not os.path.exists(path(out))
        quantize(out, "--resume").expect(0)
        same_files(whole(), path(out))


@test
def an_existing_output_is_kept():
    model = copy_model("there", whole())
    quantize("there").expect(1, "there is there already", "overwrite")
    same_files(model, whole())
    quantize("there", "--overwrite", "--wbits", "8").expect(0)
    assert json.loads(read(path("there/config.json")))["quantization_config"]["wbits"] == 8
    os.mkdir(path("precious"))
    write("precious/thesis.txt", b"x")
    quantize("precious", "--overwrite").expect(1, "precious")
    assert read(path("precious/thesis.txt")) == b"x"
    write("a-file", b"x")
    quantize("a-file", "--overwrite").expect(1, "a-file")
    model = copy_model("itself")
    quantize("itself", "--overwrite", source=model).expect(1, "the model itself")
    quantize("twice-over", source=whole()).expect(1, "quantized already")


@test
def two_runs_do_not_meet():
    p = start("--threads", 1, "quantize", TINY, "-o", path("twice"), "--calib", text(), "-q", *SMALL)
    caught = wait_for(lambda: layers_done("twice") >= 0, p)
    r = quantize("twice")
    _, err = p.communicate(timeout=120)
    if not caught or r.rc == 0:
        raise Skip("the first run was too quick")
    r.expect(1, "twice")
    assert p.returncode == 0, err
    same_files(whole(), path("twice"))


def shell_quantize(out, prefix):
    return shell("%s $ATOM quantize %s -o %s --calib %s -q %s" % (prefix, TINY, out, text(), " ".join(SMALL)))


@test
def a_file_size_limit_is_an_error():
    # Blocks of 1024 bytes: less than a layer, and less than the embedding but more than a layer.
    for blocks in (64, 1024):
        out = path("limit-%d" % blocks)
        shell_quantize(out, "ulimit -f %d;" % blocks).expect(1, "File too large", ".safetensors")
        assert not os.path.exists(out)
        assert not [f for f in os.listdir(out + ".partial") if f.endswith(".tmp")]
        quantize("limit-%d" % blocks, "--resume").expect(0)
        same_files(whole(), out)


@test
def a_full_disk_is_an_error():
    disk = path("disk")
    os.mkdir(disk)
    r = shell("mount -t tmpfs -o size=2m tmpfs %s" % disk)
    if r.rc:
        raise Skip("a small file system cannot be mounted here")
    try:
        out = os.path.join(disk, "out")
        shell_quantize(out, "").expect(1, "No space left", disk)
        assert not os.path.exists(out)
        r = shell("mount -o remount,size=64m %s" % disk).expect(0)
        shell_quantize(out, "").expect(0)
        same_files(whole(), out)
    finally:
        shell("umount %s" % disk)


@test
def sizes_beyond_a_layers_are_refused():
    for options, words in ((["--group", 257], "a group of 257 is more than the 256 channels of attn_in"),
                           (["--outliers", 257], "257 outliers are more than the 256 channels of attn_in"),
                           (["--rows-per-scale", 257], "257 rows per scale are more than the 256 rows of self_attn.q_proj")):
        quantize("beyond", *TINIER, *options).expect(1, words)
    assert not os.path.exists(path("beyond"))
    quantize("up-to", *TINIER, "--group", 256, "--outliers", 256, "--rows-per-scale", 256).expect(0)


@test
def options_that_do_nothing_are_refused():
    for options, a, b in ((["--smooth-search", "peak", "--smooth", 0], "--smooth-search", "--smooth 0"),
                          (["--scheme", "w8a8", "--smooth-search", "rms"], "--smooth-search", "--smooth 0"),
                          (["--asymmetric", 0.5, "--no-gptq"], "--asymmetric", "--gptq"),
                          (["--scheme", "w8a8", "--asymmetric", 1], "--asymmetric", "--gptq (the scheme is 'w8a8')"),
                          (["--scheme", "w4a16-gptq", "--smooth", 0.5], "--smooth", "--abits 16 without --smooth-search"),
                          (["--gptq", "--no-gptq"], "--gptq", "--no-gptq"),
                          (["--search-clip", "--no-search-clip"], "--search-clip", "--no-search-clip"),
                          (["--outliers", 0, "--outlier-bits", 16], "--outlier-bits", "--outliers 0"),
                          (["--scheme", "w4a16", "--act-clip", 0.9], "--act-clip", "--abits 16"),
                          (["--kvbits", 16, "--kv-clip", 0.9], "--kv-clip", "--kvbits 16"),
                          (["--scheme", "kv4", "--group", 64], "--group", "--wbits 16 --abits 16"),
                          (["--scheme", "kv4", "--outliers", 4], "--outliers", "--wbits 16 --abits 16"),
                          (["--scheme", "kv4", "--format", "fp4"], "--format", "--wbits 16 --abits 16")) + tuple(
            (["--wbits", 16, *o], o[0], "--wbits 16") for o in (
                ["--smooth", 0.5], ["--smooth-search", "peak"], ["--asymmetric", 0.5], ["--gptq"], ["--search-clip"],
                ["--weight-clip", 0.9], ["--rows-per-scale", 2])):
        quantize("nothing", *TINIER, *options).expect(2, a, b)
    assert not os.path.exists(path("nothing")) and not os.path.exists(path("nothing.partial"))


@test
def what_a_scheme_has_and_options_switch_off_is_not_reported():
    def scheme(*options):
        quantize("off", *TINIER, "--overwrite", *options).expect(0)
        return atom("inspect", path("off"), "--json").expect(0).json()["scheme"]
    assert scheme("--no-gptq")["asymmetric"] == 0
    assert scheme("--scheme", "w8a8-smooth", "--smooth", 0)["smooth_search"] == "none"
    s = scheme("--wbits", 16)
    assert (s["gptq"], s["clip_search"], s["smooth"], s["asymmetric"]) == (False, False, 0, 0), s


@test
def calibration_files_are_named():
    os.mkdir(path("folder"))
    for name, data, words in (("short.txt", b"Few words.", "less than one window of 96"), ("empty.txt", b"", "less than one window"),
                              ("bytes.txt", read(text())[:1000] + b"\xff", "UTF-8"), ("some.txt", read(text())[:2000], "6 samples"),
                              ("gone.txt", None, "No such file"), ("folder", None, "directory")):
        if data is not None:
            write(name, data)
        atom("quantize", TINY, "-o", path("never"), "--calib", path(name), "-q", *SMALL).expect(1, path(name), words)
    for data, words in (("", "0 windows"), ("x\n", "line 1"), ('{"ids": [1, 2]}\n', "line 1"), ('{"ids": %s}\n' % ([1] * 96), "1 windows")):
        atom("quantize", TINY, "-o", path("never"), "--calib-ids", write("ids.jsonl", data), "-q", *SMALL).expect(
            1, path("ids.jsonl"), words)
    atom("quantize", TINY, "-o", path("never"), "--calib-ids", path("folder"), "-q", *SMALL).expect(1, path("folder"), "directory")


@test
def a_directory_that_cannot_be_made():
    quantize("no/such/parent").expect(1, "no/such/parent")
    quantize("dev/null").expect(1)
    atom("quantize", TINY, "-o", "/proc/out", "--calib", text(), "-q", *SMALL).expect(1, "/proc/out")
    atom("quantize", TINY, "-o", "", "--calib", text(), "-q", *SMALL).expect(1)


main()
