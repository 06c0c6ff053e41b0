#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom inspect --plot from outside: what the picture of a checkpoint holds, and when there is none."""
from clitest import *

SITES = ("attn_in", "o_in", "mlp_in", "down_in")


def plot(model, *args, out="plot.svg"):
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    return atom("inspect", model, "-q", "--plot", path(out), *args)


def measured(model, *args, out="plot.svg"):
    return plot(model, "--calib", text(), "--samples", 2, "--window", 64, *args, out=out)


def drawing(run, out="plot.svg"):
    assert run.expect(0).err == "" and run.out == b"", run
    svg = read(path(out)).decode()
    assert svg.startswith("<?xml") and svg.rstrip().endswith("</svg>")
    os.remove(path(out))
    return svg


@test
def a_float_model():
    svg = drawing(measured(TINY))
    for words in ("tiny", "float, 64 outlier channels", "Which channels are outliers", "Energy in the outliers",
                  "Root mean square of each channel on 2 windows of 64 tokens of text.txt", "in stored order") + SITES:
        assert words in svg, words
    assert "Error of each linear" not in svg


@test
def a_quantized_model_without_a_text():
    svg = drawing(plot(quantized()))
    for words in ("tiny-w4a4", "4 / 4 / 4 bits", "Error of each linear, %", "Which channels are outliers") + SITES:
        assert words in svg, words
    assert "Root mean square" not in svg and "Energy" not in svg
    # Every linear's error stands there.
    linears = atom("inspect", quantized(), "--json").expect(0).json()["linears"]
    for l in linears:
        e = 100 * l["error"]
        assert "%.*f" % (2 if e < 9.95 else 1, e) in svg, l
    assert len(linears) == 28


@test
def a_quantized_model_with_one():
    svg = drawing(measured(quantized()))
    for words in ("Error of each linear, %", "Which channels are outliers", "Energy in the outliers", "Root mean square"):
        assert words in svg, words


@test
def a_cache_alone_is_quantized():
    out = path("kv4")
    atom("quantize", TINY, "-o", out, "--calib", text(), "-q", "--samples", 2, "--window", 64, "--wbits", 16, "--abits",
         16).expect(0)
    svg = drawing(measured(out))
    assert "Root mean square" in svg and "Which channels" not in svg and "Error" not in svg
    plot(out).expect(1, "neither errors nor outliers", "--calib FILE")


@test
def many_layers_make_a_longer_page():
    def height(model):
        svg = drawing(measured(model))
        return int(svg.split('height="')[1].split('"')[0])
    model = copy_model("many")
    data = read(os.path.join(TINY, "model.safetensors"))
    n = int.from_bytes(data[:8], "little")
    header, body, blobs = json.loads(data[8:8 + n]), data[8 + n:], []
    header.pop("__metadata__", None)
    for name in sorted(header):
        if name.startswith("model.layers."):
            number = name.split(".")[2]
            for more in range(int(number) + 4, 12, 4):
                header[name.replace("layers.%s." % number, "layers.%d." % more)] = dict(header[name])
    at = 0
    for t in header.values():
        begin, end = t["data_offsets"]
        blobs.append(body[begin:end])
        t["data_offsets"] = [at, at + end - begin]
        at += end - begin
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    write("many/model.safetensors", len(head).to_bytes(8, "little") + head + b"".join(blobs))
    set_config(model, num_hidden_layers=12)
    assert height(model) > 2 * height(TINY)


@test
def progress_is_words():
    r = atom("inspect", TINY, "--plot", path("p.svg"), "--calib", text(), "--samples", 1, "--window", 32)
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    assert "4 of 4 layers" in r.expect(0).err and r.out == b"", r


@test
def what_is_missing_is_said():
    plot(TINY).expect(1, "tiny is a float model", "--calib FILE")
    plot(TINY, "--calib", path("none.txt")).expect(1, "none.txt")
    plot(TINY, "--calib", write("short.txt", b"Few words.")).expect(1, "short.txt", "less than one window")
    plot(TINY, "--calib", text(), "--window", 4096).expect(1, "2048 positions")
    plot(path("no-model"), "--calib", text()).expect(1, "no-model")
    plot(quantized(), out="no/such.svg").expect(1, "no/such.svg")
    for args in (["--calib", text()], ["--samples", 2], ["--window", 64]):
        atom("inspect", TINY, *args).expect(2, "--plot FILE")
    for flag in ("--json", "--tensors"):
        plot(quantized(), flag).expect(2, flag)
    assert not os.path.exists(path("plot.svg"))


@test
def a_damaged_order_is_named():
    model = copy_model("damaged", quantized())
    for f in sorted(os.listdir(model)):
        if not f.endswith(".safetensors"):
            continue
        data = bytearray(read(os.path.join(model, f)))
        n = int.from_bytes(data[:8], "little")
        t = json.loads(data[8:8 + n]).get("model.layers.1.mlp_in.order")
        if t:
            at = 8 + n + t["data_offsets"][0]
            data[at:at + 4] = (100000).to_bytes(4, "little")
            write("damaged/" + f, bytes(data))
    plot(model).expect(1, "model.layers.1.mlp_in.order", "100000")


@test
def without_gnuplot():
    r = shell("PATH=/nowhere $ATOM inspect %s --plot %s --calib %s" % (TINY, path("never.svg"), text()))
    r.expect(1, "gnuplot-nox")
    assert not os.path.exists(path("never.svg"))


@test
def a_plot_spares_its_text():
    file = write("spare.txt", read(text()))
    atom("inspect", TINY, "--plot", file, "--calib", file).expect(2, "would overwrite")
    assert read(file) == read(text())


@test
def devices_links_and_folders_stay_what_they_are():
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    os.mkdir(path("folder"))
    r = measured(TINY, out="folder").expect(1, "folder: Is a directory")
    write("target.svg", b"old")
    os.symlink("target.svg", path("link.svg"))
    measured(TINY, out="link.svg").expect(0)
    assert os.path.islink(path("link.svg")) and b"</svg>" in read(path("target.svg"))
    full = full_device()
    measured(TINY, out="full").expect(1, "full: No space left")
    assert stat.S_ISCHR(os.stat(full).st_mode)


main()
