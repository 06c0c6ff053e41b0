#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval tasks: what it prints and logs, and what it refuses; scores of third-party items where they are there."""
import math
import tarfile

from clitest import *

CHOICES = [{"task": "nouns", "context": "In the morning the king came out of", "choices": [" his house", " the sea", " a"],
            "gold": 0},
           {"task": "verbs", "context": "", "choices": ["The king went home.", "The king home went."], "gold": 0},
           {"task": "nouns", "context": "She gave the bread to her", "choices": [" mother", " never"], "gold": 1}]
CONTEXTS = [{"contexts": ["The king saw Ann, so the king", "The king saw Ann, so Ann"], "continuation": " bowed.",
             "gold": 1}]
ENDS = [{"context": "In the morning the king came out", "continuation": c} for c in (" of", " the", " Zanzibar")]


def items(name, lines):
    return write(name, "".join(json.dumps(l) + "\n" for l in lines))


def run(*args):
    return atom("eval", "tasks", TINY, "-q", *args)


@test
def a_line_for_each_file():
    files = [items("choices.jsonl", CHOICES), items("contexts.x.jsonl", CONTEXTS), items("ends", ENDS)]
    a, b, c = run("--json", *files).expect(0).lines()
    assert [r["task"] for r in (a, b, c)] == ["choices", "contexts.x", "ends"], (a, b, c)
    assert [r["file"] for r in (a, b, c)] == files and [r["n"] for r in (a, b, c)] == [3, 1, 3]
    assert 0 <= a["acc"] <= 1 and 0 <= a["acc_norm"] <= 1 and a["ppl"] is None and "subtask" not in a
    assert abs(a["acc_stderr"] - math.sqrt(a["acc"] * (1 - a["acc"]) / 2)) < 1e-9
    assert b["acc"] in (0, 1) and b["acc_norm"] is None and b["ppl"] is None and b["acc_stderr"] is None
    assert c["acc_norm"] is None and c["ppl"] > 1 and c["ppl_stderr"] > 0


@test
def log_of_items():
    log = path("log.jsonl")
    files = [items("choices.jsonl", CHOICES), items("ends.jsonl", ENDS)]
    a, b = run("--json", "--log", log, *files).expect(0).lines()
    lines = [json.loads(l) for l in read(log).splitlines()]
    assert [(l["task"], l["line"]) for l in lines] == [(t, i) for t in ("choices", "ends") for i in (1, 2, 3)], lines
    for item, l in zip(CHOICES, lines):
        lls = l["loglikelihoods"]
        norm = [x / len(c.strip(" ")) for x, c in zip(lls, item["choices"])]
        assert l["subtask"] == item["task"] and l["gold"] == item["gold"] and len(l["tokens"]) == len(lls)
        assert l["best"] == lls.index(max(lls)) and l["best_norm"] == norm.index(max(norm)), l
        assert l["right"] == (l["best"] == l["gold"]) and l["right_norm"] == (l["best_norm"] == l["gold"])
    assert abs(a["acc"] - sum(l["right"] for l in lines[:3]) / 3) < 1e-9
    assert abs(a["acc_norm"] - sum(l["right_norm"] for l in lines[:3]) / 3) < 1e-9
    mean = sum(l["loglikelihoods"][0] for l in lines[3:]) / 3
    assert abs(b["ppl"] / math.exp(-mean) - 1) < 1e-9 and abs(b["acc"] - sum(l["right"] for l in lines[3:]) / 3) < 1e-9
    run("--log", path("no/log"), files[0]).expect(1, "no/log", "No such file")
    run("--log", "/dev/full", files[0]).expect(1, "/dev/full")


@test
def subtasks():
    file = items("choices.jsonl", CHOICES)
    whole, nouns, verbs = run("--json", "--by-subtask", file).expect(0).lines()
    assert "subtask" not in whole and (nouns["subtask"], nouns["n"]) == ("nouns", 2) and verbs["subtask"] == "verbs"
    assert abs(whole["acc"] - (2 * nouns["acc"] + verbs["acc"]) / 3) < 1e-9
    assert len(run("--json", "--by-subtask", items("ends.jsonl", ENDS)).expect(0).lines()) == 1


@test
def table():
    page = run("--by-subtask", items("choices.jsonl", CHOICES), items("ends.jsonl", ENDS)).expect(0).out.decode()
    rows = [l.split()[0] for l in page.splitlines()]
    assert rows == ["task", "choices", "nouns", "verbs", "ends"], page


@test
def limit():
    file = items("choices.jsonl", CHOICES)
    assert run("--json", "--limit", 2, file).expect(0).json()["n"] == 2
    assert run("--json", "--limit", 100, file).expect(0).json()["n"] == 3


@test
def same_numbers_on_every_tier():
    file, want = items("choices.jsonl", CHOICES), None
    for way in ([], ["--cpu", "scalar"], ["--cpu", "avx2"], ["--threads", 1], ["--threads", 3]):
        log = path("way.jsonl")
        r = atom(*way, "eval", "tasks", quantized(), "-q", "--log", log, file)
        if r.rc and "this processor has no" in r.err:
            continue
        r.expect(0)
        want = want or read(log)
        assert read(log) == want, way


@test
def bad_items():
    good = json.dumps(CHOICES[0]) + "\n"
    bare = {"context": "a", "choices": [" b", " c"]}
    cases = [("", "1", "there is none"), ("\n", "1", "JSON"), (good + "{", "2", "JSON"), (good + "[1]\n", "2", "object"),
             (good + json.dumps(ENDS[0]), "2", "choices"), (json.dumps(bare), "1", "gold"),
             (json.dumps(dict(bare, gold=2)), "1", "from 0 to 1"), (json.dumps(dict(bare, gold="0")), "1", "gold"),
             (json.dumps(dict(bare, gold=0, choices=["a", ""])), "1", "empty"),
             (json.dumps({"choices": ["a", "b"], "gold": 0}), "1", "context")]
    for data, line, word in cases:
        r = run("--json", write("bad.jsonl", data)).expect(1, "bad.jsonl: line %s: " % line, word)
        assert r.out == b"" and r.err.count("\n") == 1, r
    long = dict(bare, gold=0, context="king " * 3000)
    run(items("long.jsonl", CHOICES[:0] + [long])).expect(1, "long.jsonl: line 1: ", "2048 positions")
    run(path("no.jsonl")).expect(1, "no.jsonl: No such file")
    strange = path("").encode() + b"\xff.jsonl"
    with open(strange, "wb") as f:
        f.write(good.encode())
    run(strange).expect(0)
    run("--json", strange).expect(1, "not UTF-8")
    # What came before stands.
    r = run("--json", items("ends.jsonl", ENDS), write("bad.jsonl", "x")).expect(1, "bad.jsonl")
    assert len(r.lines()) == 1


@test
def interrupted():
    many = items("many.jsonl", CHOICES * 20000)
    p = start("eval", "tasks", TINY, many)
    time.sleep(1)
    p.terminate()
    _, err = p.communicate(timeout=60)
    assert p.returncode != 0, err


@once
def third_party():
    """Evaluation items and the float model whose scores are known."""
    shared = os.environ.get("ATOM_SHARED", "../shared")
    for name in ("eval.tar.xz", "models/mid-28m.tar.xz"):
        if not os.path.exists(os.path.join(shared, name)):
            raise Skip("%s is not in the shared data" % name)
        with tarfile.open(os.path.join(shared, name)) as t:
            t.extractall(path("third-party"))
    return path("third-party/eval"), path("third-party/mid-28m")


@test
def references_of_a_float_model():
    """Log-likelihoods of the first items of each file, written apart from this program."""
    folder, model = third_party()
    want = json.loads(read(os.path.join(folder, "reference_mid-28m.json")))
    log = path("mid.jsonl")
    files = [os.path.join(folder, t + ".jsonl") for t in sorted(want)]
    atom("eval", "tasks", model, "-q", "--limit", 3, "--log", log, *files).expect(0)
    got = [json.loads(l) for l in read(log).splitlines()]
    for task, ref in want.items():
        lines = [l["loglikelihoods"] for l in got if l["task"] == task]
        assert len(lines) == 3, task
        for a, b in zip(lines, ref["first_loglikelihoods"]):
            b = b if isinstance(b, list) else [b]
            assert len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) <= 2e-3, (task, a, b)


main()
