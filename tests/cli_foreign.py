#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of other programs, read and written: the same weights give the same bits."""
import array

from clitest import *

EVAL = os.path.join(TINY, "eval.txt")
W4A16 = ["--abits", "16", "--kvbits", "16", "--outliers", "0", "--smooth", "0", "--rotate", "none", "--no-gptq"]
PPL = ["--window", "64", "--max-windows", "6", "--json"]
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def ppl(model):
    return atom("eval", "ppl", model, EVAL, *PPL).expect(0).lines()[0]["ppl"]


@once
def ours():
    out = path("w4a16")
    atom("quantize", TINY, "-o", out, "--calib", EVAL, "--samples", 1, "--window", 64, "-q", *W4A16).expect(0)
    return out


@once
def exported():
    atom("export", ours(), "-o", path("exported"), "-q").expect(0)
    return path("exported")


def tensors(model):
    """Name to (dtype, shape, bytes) of all files."""
    found = {}
    for f in sorted(os.listdir(model)):
        if f.endswith(".safetensors"):
            data = read(os.path.join(model, f))
            n = int.from_bytes(data[:8], "little")
            for name, t in json.loads(data[8:8 + n]).items():
                if name != "__metadata__":
                    a, b = t["data_offsets"]
                    found[name] = (t["dtype"], t["shape"], data[8 + n + a:8 + n + b])
    return found


def put_model(name, all_tensors, quantization, beside=False):
    """A directory of TINY's with other tensors; `beside`: quantize_config.json says what they are."""
    out = path(name)
    os.mkdir(out)
    for f in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(TINY, f), out)
    header, body, at = {}, [], 0
    for k, (dtype, shape, data) in all_tensors.items():
        header[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        body.append(data)
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head + b"".join(body))
    if beside:
        with open(os.path.join(out, "quantize_config.json"), "w") as f:
            json.dump({k: v for k, v in quantization.items() if k != "quant_method"}, f)
    else:
        set_config(out, quantization_config=quantization)
    return out


def turned(data, rows, cols, kind):
    """[rows, cols] as [cols, rows]."""
    a = array.array(kind, data)
    return b"".join(a[c::cols].tobytes() for c in range(cols))


@once
def gptq_tensors(stored_zero):
    made = {}
    for name, (dtype, shape, data) in tensors(ours()).items():
        if name.endswith(".order"):
            continue
        p, _, part = name.rpartition(".")
        if part == "qweight":
            n, words = shape[0], shape[1] // 4
            made[p + ".qweight"] = ("I32", [words, n], turned(data, n, words, "I"))
            groups = words * 8 // 128
            made[p + ".qzeros"] = ("I32", [groups, n // 8], bytes([stored_zero * 17]) * (groups * n // 2))
            g_idx = array.array("i", [i // 128 for i in range(words * 8)])
            made[p + ".g_idx"] = ("I32", [words * 8], g_idx.tobytes())
        elif part == "scales":
            made[name] = (dtype, shape[::-1], turned(data, shape[0], shape[1], "H"))
        else:
            made[name] = (dtype, shape, data)
    return made


@test
def export_keeps_every_bit():
    assert ppl(exported()) == ppl(ours())
    a, b = tensors(ours()), tensors(exported())
    p = "model.layers.2.mlp.down_proj."
    assert b[p + "weight_packed"] == ("I32", [256, 96], a[p + "qweight"][2])
    assert b[p + "weight_scale"] == a[p + "scales"]
    assert b[p + "weight_shape"] == ("I64", [2], (256).to_bytes(8, "little") + (768).to_bytes(8, "little"))
    assert not [n for n in b if "order" in n or "qweight" in n]


@test
def export_says_what_it_is():
    config = json.loads(read(os.path.join(exported(), "config.json")))
    q = config["quantization_config"]
    assert config["dtype"] == "float16" and q["quant_method"] == "compressed-tensors"
    assert q["format"] == "pack-quantized" and q["ignore"] == ["lm_head"] and q["quantization_status"] == "compressed"
    (group,) = q["config_groups"].values()
    assert group["targets"] == ["Linear"] and group["input_activations"] is None
    w = group["weights"]
    assert (w["num_bits"], w["type"], w["symmetric"], w["strategy"], w["group_size"]) == (4, "int", True, "group", 128)
    files = sorted(os.listdir(exported()))
    assert "tokenizer.json" in files and "atom_report.json" not in files and not [f for f in files if "state" in f]
    i = atom("inspect", exported(), "--json").expect(0).json()
    assert i["format"] == "compressed-tensors" and {l["form"] for l in i["linears"]} == {"4 bits"}
    assert "stored as compressed-tensors" in atom("inspect", exported()).expect(0).out.decode()


@test
def a_scale_a_row():
    out, to = path("row"), path("row-exported")
    atom("quantize", TINY, "-o", out, "--calib", EVAL, "--samples", 1, "--window", 64, "-q", *W4A16, "--group",
         0).expect(0)
    atom("export", out, "-o", to, "-q").expect(0)
    assert ppl(out) == ppl(to)
    w = json.loads(read(os.path.join(to, "config.json")))["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (w["strategy"], w["group_size"]) == ("channel", -1)


@test
def export_refuses_what_it_cannot_say():
    out = path("refused")
    atom("export", TINY, "-o", out).expect(1, "a float model")
    atom("export", exported(), "-o", out).expect(1, "another program's")
    q = json.loads(read(os.path.join(ours(), "config.json")))["quantization_config"]
    for field, value, words in (("abits", 4, "activations of 4 bits"), ("kvbits", 4, "KV cache"),
                                ("outliers", 16, "outlier channels"), ("rows_per_scale", 2, "share a scale"),
                                ("lm_head_bits", 8, "head is quantized"), ("group", 96, "no multiple of groups of 96"),
                                ("wbits", 3, "weights of 3")):
        made = copy_model("not-" + field, ours())
        set_config(made, quantization_config=dict(q, **{field: value}))
        atom("export", made, "-o", out).expect(1, made, words)
    name = "model.layers.1.o_in.order"
    made = copy_model("reordered", ours())
    file = os.path.join(made, json.loads(read(os.path.join(made, "model.safetensors.index.json")))["weight_map"][name])
    data = bytearray(read(file))
    n = int.from_bytes(data[:8], "little")
    at = 8 + n + json.loads(data[8:8 + n])[name]["data_offsets"][0]
    data[at:at + 8] = data[at + 4:at + 8] + data[at:at + 4]
    with open(file, "wb") as f:
        f.write(data)
    atom("export", made, "-o", out).expect(1, "channels are reordered")
    assert not os.path.exists(out) and not os.path.exists(out + ".partial")


@test
def export_leaves_what_is_there():
    out = path("there")
    shutil.copytree(exported(), out)
    atom("export", ours(), "-o", out).expect(1, "there already")
    atom("export", ours(), "-o", out, "--overwrite", "-q").expect(0)
    assert tensors(out) == tensors(exported())
    atom("export", ours(), "-o", ours(), "--overwrite").expect(1, "the model itself")
    assert atom("export", ours()).rc == 2 and atom("export", ours(), "-o", out, "--format", "gguf").rc == 2


@test
def gptq_gives_the_same_bits():
    v1 = put_model("v1", gptq_tensors(7), GPTQ)
    v2 = put_model("v2", gptq_tensors(8), dict(GPTQ, checkpoint_format="gptq_v2"))
    old = put_model("old", gptq_tensors(7), dict(GPTQ, model_file_base_name="model", damp_percent=0.01), beside=True)
    assert ppl(v1) == ppl(v2) == ppl(old) == ppl(ours())
    one = ["--prompt", "The", "--max-tokens", 12, "--temperature", 0]
    assert atom("generate", v1, *one).expect(0).out == atom("generate", ours(), *one).expect(0).out
    assert atom("inspect", old, "--json").expect(0).json()["format"] == "gptq"


@test
def gptq_in_byte_and_float():
    """Zero points that are not the middle: the same weights of 4-bit codes, held in bytes."""
    shifted = dict(gptq_tensors(7))
    for name in list(shifted):
        if name.endswith("up_proj.qzeros"):
            dtype, shape, data = shifted[name]
            shifted[name] = (dtype, shape, bytes([0x77, 0x77, 0x77, 0x76]) * (len(data) // 4))
    model = put_model("asymmetric", shifted, dict(GPTQ, sym=False))
    forms = {(l["form"], l["why"]) for l in atom("inspect", model, "--json").expect(0).json()["linears"]}
    assert ("4 bits", None) in forms and ("8 bits", "zero points") in forms and len(forms) == 2, forms
    assert ppl(model) != ppl(ours())
    page = atom("inspect", model).expect(0).out.decode()
    assert "8 bits" in page and ": zero points" in page
    atom("eval", "ppl", put_model("asymmetric-v1", shifted, GPTQ), EVAL, *PPL).expect(
        1, "up_proj", "said to be symmetric")


@test
def what_else_says_gptq_is_refused():
    for fields, words in (({"bits": 3}, "3 bits"), ({"checkpoint_format": "marlin"}, "'marlin'"),
                          ({"lm_head": True}, "'lm_head'"), ({"dynamic": {"-:x": {}}}, "single modules"),
                          ({"pack_dtype": "int16"}, "'int16'"), ({"group_size": 0}, "group_size"),
                          ({"news": 1}, "'news'"), ({"quant_method": "awq"}, "'awq'")):
        model = put_model("odd" + "-".join(fields), gptq_tensors(7), dict(GPTQ, **fields))
        atom("eval", "ppl", model, EVAL, *PPL).expect(1, words)
        atom("inspect", model).expect(1, words)
    atom("eval", "ppl", put_model("mislabelled", gptq_tensors(8), GPTQ), EVAL, *PPL).expect(1, "checkpoint_format")
    more = dict(gptq_tensors(7))
    more["model.layers.0.mlp.up_proj.extra"] = more["model.layers.0.mlp.up_proj.g_idx"]
    atom("eval", "ppl", put_model("extra", more, GPTQ), EVAL, *PPL).expect(1, "up_proj.extra")
    atom("quantize", path("mislabelled"), "-o", path("no"), "--calib", EVAL).expect(1, "quantized already")


@test
def what_else_says_compressed_is_refused():
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized",
              "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    packed = tensors(exported())

    def refused(name, q, words):
        atom("eval", "ppl", put_model(name, packed, q), EVAL, *PPL).expect(1, words)

    def with_weights(**fields):
        return dict(config, config_groups={"group_0": {"weights": dict(weights, **fields)}})

    assert ppl(put_model("bare", packed, config)) == ppl(ours())
    groups = dict(config["config_groups"], group_1=config["config_groups"]["group_0"])
    refused("ct-groups", dict(config, config_groups=groups), "2 config_groups")
    refused("ct-format", dict(config, format="nvfp4-pack-quantized"), "'nvfp4-pack-quantized'")
    refused("ct-status", dict(config, quantization_status="frozen"), "'frozen'")
    refused("ct-kv", dict(config, kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme")
    refused("ct-sparse", dict(config, sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config")
    refused("ct-transform", dict(config, transform_config={"config_groups": {}}), "transform_config")
    refused("ct-float", with_weights(type="float"), "'float'")
    refused("ct-block", with_weights(strategy="block"), "'block'")
    refused("ct-bits", with_weights(num_bits=6), "6 bits")
    refused("ct-size", with_weights(group_size=64), "weight_scale")
    refused("ct-order", with_weights(actorder="group"), "weight_g_idx")
    acts = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    for fields, words in (({}, "a scale a row"), ({"dynamic": False}, "static"), ({"symmetric": False}, "asymmetric"),
                          ({"strategy": "tensor"}, "'tensor'"), ({"num_bits": 4}, "4 bits")):
        q = {"group_0": {"weights": weights, "input_activations": dict(acts, **fields)}}
        refused("ct-acts" + "".join(fields), dict(config, config_groups=q), words)


@test
def channels_of_others_are_drawn():
    if not shutil.which("gnuplot"):
        raise Skip("there is no gnuplot")
    by_group = dict(gptq_tensors(7))
    for name in [n for n in by_group if n.endswith(("gate_proj.g_idx", "up_proj.g_idx"))]:
        by_group[name] = ("I32", [256], array.array("i", [(255 - i) // 128 for i in range(256)]).tobytes())
    for model, method in ((exported(), "compressed-tensors"), (put_model("by-group", by_group, dict(GPTQ, desc_act=True)), "gptq")):
        out = path("foreign.svg")
        atom("inspect", model, "--plot", out, "-q").expect(
            1, "%s (stored as %s) has neither errors nor outliers" % (os.path.basename(model), method), "(--calib FILE)")
        assert not os.path.exists(out)
        atom("inspect", model, "--plot", out, "-q", "--calib", EVAL, "--samples", 2, "--window", 64).expect(0)
        svg = read(out).decode()
        assert "Root mean square of each channel" in svg and "Which channels" not in svg and "Error" not in svg
        os.remove(out)


main()
