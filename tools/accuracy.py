#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes every number of docs/accuracy.md.

usage: accuracy.py MODEL CALIBRATION_TEXT TEXT ITEMS_DIR WORK_DIR [--schemes NAMES] [--whole NAMES] [--only TABLE] [--write PAGE]

Runs the program (ATOM, default build/atom) and keeps each command's JSON lines in a folder of WORK_DIR that is named after what program,
model, texts and items hold: what is there is not run again, so that a stopped run goes on. Prints the tables, or writes them between the marks of a page. ITEMS_DIR holds *.jsonl as
`atom eval tasks` takes them. --schemes names those of the table with all that `atom eval --schemes` measures, --whole those whose
perplexity is measured on all of TEXT."""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys

ATOM = os.environ.get("ATOM", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "atom"))
SCHEMES = "w8a8,w8a8-smooth,w4a16-rtn,w4a16-gptq,w4a16-awq,w4a8kv4,w4a4kv4,kv8,kv4,kv3"
WHOLE = "w8a8-smooth,w4a16-gptq,w4a16-awq,w4a8kv4,w4a4kv4"
SAMPLES, WINDOW = 64, 1024
SOME_WINDOWS = 40  # of the tables with many rows
LIMIT = 500        # items a file in the table of schemes


class Measure:
    def __init__(self, work):
        self.work = work
        os.makedirs(work, exist_ok=True)

    def __call__(self, name, *args):
        """The command's JSON lines, from an earlier run if the same one finished."""
        file = os.path.join(self.work, name + ".jsonl")
        command = [str(a) for a in args]
        if os.path.exists(file):  # written whole or not at all
            with open(file) as f:
                head, *lines = [json.loads(line) for line in f]
            if head == command:
                return lines
        lines = self.run(command)
        with open(file + ".partial", "w") as f:
            f.write("".join(json.dumps(x) + "\n" for x in [command, *lines]))
        os.replace(file + ".partial", file)
        return lines

    def run(self, command):
        print("atom", *command, file=sys.stderr, flush=True)
        run = subprocess.run([ATOM, *command], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            sys.exit("accuracy.py: that command failed")
        return [json.loads(line) for line in run.stdout.splitlines()]


def content_key(a):
    """Of everything that a number depends on."""
    key = hashlib.sha256()
    files = [ATOM, a.calib, a.text, *a.items, *sorted(os.path.join(a.model, f) for f in os.listdir(a.model))]
    for file in filter(os.path.isfile, files):
        with open(file, "rb") as f:
            key.update(b"%s %d\n" % (os.path.basename(file).encode(), os.path.getsize(file)))
            for block in iter(lambda: f.read(1 << 20), b""):
                key.update(block)
    return key.hexdigest()[:16]


def write_table(page, name, text):
    with open(page) as f:
        whole = f.read()
    with open(page + ".partial", "w") as f:
        f.write(place(name).sub(lambda x: x[1] + "\n" + text + "\n\n" + x[3], whole))
    os.replace(page + ".partial", page)


def place(name):
    return re.compile(r"(<!-- %s -->\n)(.*?)(<!-- end -->)" % name, re.S)


def check(a):
    """What would fail after hours fails at once."""
    for file in (ATOM, a.calib, a.text, os.path.join(a.model, "config.json")):
        if not os.path.isfile(file):
            sys.exit("accuracy.py: %s is not there%s" % (file, ": run make, or set ATOM" if file == ATOM else ""))
    folder, a.items = a.items, []
    if os.path.isdir(folder):
        a.items = sorted(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".jsonl"))
    if not a.items:
        sys.exit("accuracy.py: %s holds no *.jsonl" % folder)
    if a.write:
        try:
            with open(a.write) as f:
                page = f.read()
        except OSError as e:
            sys.exit("accuracy.py: %s: %s" % (a.write, e.strerror))
        for name in a.only or TABLES:
            if not place(name).search(page):
                sys.exit("accuracy.py: %s has no place for the table %s" % (a.write, name))


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def percent(x):
    return "" if x is None else "%.2f" % (100 * x)


def stem(path):
    return os.path.splitext(os.path.basename(path))[0]


def whole_text(m, a):
    """Perplexity of all of TEXT, and how far each is from the float model."""
    rows = [("float", m("whole-float", "eval", "ppl", a.model, a.text, "--window", WINDOW, "--json", "-q")[0]["ppl"], None)]
    for name in filter(None, a.whole.split(",")):
        ppl = m("whole-" + name, "eval", "ppl", scheme_dir(m, a, name), a.text, "--window", WINDOW, "--json", "-q")
        rows.append((name, ppl[0]["ppl"], ppl[0]["ppl"] / rows[0][1] - 1))
    return table(["scheme", "perplexity", "over float"],
                 [("`%s`" % n if more is not None else n, "%.3f" % p, "" if more is None else "%.2f %%" % (100 * more))
                  for n, p, more in rows])


def scheme_dir(m, a, name):
    """Makes the checkpoint where `atom eval --schemes --keep` has it too."""
    out = os.path.join(m.work, "schemes", name)
    if not os.path.exists(out):
        os.makedirs(os.path.dirname(out), exist_ok=True)
        m.run(["quantize", a.model, "-o", out, "--calib", a.calib, "--samples", str(SAMPLES), "--window", str(WINDOW),
               "--scheme", name, "-q", "--resume"])
    return out


def schemes(m, a):
    """Every scheme by size, perplexity, divergence and items."""
    tasks = [x for file in a.items for x in ("--tasks", file)]
    lines = m("schemes", "eval", "--schemes", a.schemes, a.model, a.text, "--calib", a.calib, "--samples", SAMPLES,
              "--window", WINDOW, "--max-windows", SOME_WINDOWS, "--limit", LIMIT, "--keep",
              os.path.join(m.work, "schemes"), "--json", "-q", *tasks)
    rows = []
    for r in lines:
        t = r["texts"][0]
        acc = [percent(x["acc"]) for x in r["tasks"]]
        rows.append(["`%s`" % r["scheme"], "%d / %d / %d" % (r["wbits"], r["abits"], r["kvbits"]), "%.2f" % (r["bytes"] / 1e6),
                     "%.2f" % r["bits_per_weight"], "%.3f" % t["ppl"], "%.4f" % (t["kl"] or 0), percent(t["top1"]), *acc])
    return table(["scheme", "W / A / KV", "MB", "bits a weight", "perplexity", "KL", "same top %",
                  *[stem(f) for f in a.items]], rows)


def divergence(m, a):
    """How the default scheme's distance from float is spread."""
    r = m("divergence", "eval", "kld", a.model, scheme_dir(m, a, "w4a4kv4"), a.text, "--window", WINDOW, "--max-windows",
          SOME_WINDOWS, "--json", "-q")[0]
    keys = ("mean", "standard_error", "min", "p0.1", "p1", "p10", "median", "p90", "p99", "p99.9", "max")
    rows = [(k.replace("_", " "), "%.4f" % r["kl"][k], "%.4f" % r["change"][k]) for k in keys]
    rows += [("same top token", "%.2f %%" % (100 * r["top1"]), ""), ("perplexity", "%.3f" % r["ppl_a"], "%.3f" % r["ppl_b"])]
    return table(["of %d tokens" % r["tokens"], "KL (float \\|\\| `w4a4kv4`)", "change of log p"], rows)


TABLES = {"whole": whole_text, "schemes": schemes, "divergence": divergence}


def main():
    p = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "), description=__doc__.split("\n\n")[2])
    p.add_argument("model", help="float model, a Hugging Face directory")
    p.add_argument("calib", help="text to calibrate on")
    p.add_argument("text", help="text to score")
    p.add_argument("items", help="folder of *.jsonl")
    p.add_argument("work", help="folder for checkpoints and results")
    p.add_argument("--schemes", default=SCHEMES, metavar="NAMES", help="of the table with everything (%(default)s)")
    p.add_argument("--whole", default=WHOLE, metavar="NAMES", help="of the table of the whole text (%(default)s)")
    p.add_argument("--only", choices=TABLES, action="append", help="this table alone; may be given again")
    p.add_argument("--write", metavar="PAGE", help="put tables between the marks of this page instead of printing them")
    a = p.parse_args()
    check(a)
    measure = Measure(os.path.join(a.work, content_key(a)))
    for name in a.only or TABLES:
        text = TABLES[name](measure, a)
        if a.write:
            write_table(a.write, name, text)
        else:
            print(text, end="\n\n", flush=True)


main()
