#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""atom eval tasks: what it prints and logs, and what it refuses; scores of third-party items where they are there."""
import fcntl
import math
import random
import signal
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


def logged(log):
    """The lines of items."""
    return [l for l in (json.loads(l) for l in read(log).splitlines()) if "line" in l]


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
    begin, *_, end = [json.loads(l) for l in read(log).splitlines()]
    assert begin["log"] == 1 and begin["file"] == files[0] and begin["run"]["format"] == "items", begin
    assert end["n"] == 3 and abs(end["ppl"] / b["ppl"] - 1) < 1e-9, end
    lines = logged(log)
    assert [(l["task"], l["line"]) for l in lines] == [(t, i) for t in ("choices", "ends") for i in (1, 2, 3)], lines
    for item, l in zip(CHOICES, lines):
        lls = l["loglikelihoods"]
        norm = [x / len(c.strip(" ")) for x, c in zip(lls, item["choices"])]
        assert l["subtask"] == item["task"] and l["gold"] == item["gold"] and len(l["tokens"]) == len(lls)
        assert l["best"] == lls.index(max(lls)) and l["best_norm"] == norm.index(max(norm)), l
        assert l["right"] == (l["best"] == l["gold"]) and l["right_norm"] == (l["best_norm"] == l["gold"])
    # All digits: sums of differences of float32 numbers have few bits.
    assert all((x * 2.0**40).is_integer() for l in lines for x in l["loglikelihoods"]), lines
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
        r = atom(*way, "eval", "tasks", quantized(), "-q", "--log", log, "--overwrite", file)
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


PIQA = [{"goal": "boil an egg", "sol1": "put it into hot water", "sol2": "put it into the sun"},
        {"goal": "keep warm", "sol1": "take off the coat", "sol2": "put on a coat"}]


def same_scores(a, b):
    """Two runs' logs, but for what names and hashes their files."""
    keep = ("line", "loglikelihoods", "tokens", "gold", "right", "best_norm")
    return [[l.get(k) for k in keep] for l in a] == [[l.get(k) for k in keep] for l in b]


def run_logged(*args):
    log = path("logged.jsonl")
    run("--log", log, "--overwrite", *args).expect(0)
    return logged(log)


@test
def data_sets_own_files():
    want = run_logged(items("neutral.jsonl", [
        {"context": "Question: %s\nAnswer:" % p["goal"], "choices": [" " + p["sol1"], " " + p["sol2"]], "gold": g}
        for g, p in enumerate(PIQA)]))
    apart = items("valid.jsonl", PIQA)
    hub = items("hub.jsonl", [dict(p, label=g) for g, p in enumerate(PIQA)])
    assert same_scores(want, run_logged("--format", "piqa", hub))
    assert same_scores(want, run_logged("--format", "piqa", apart, "--labels", write("valid.lst", "0\n1\n")))
    for labels, sentence in (("0\n", "bad.lst: line 2: there is none"), ("0\n1\n1\n", "bad.lst: line 3: one label more"),
                             ("0\nx\n", 'bad.lst: line 2: "x"'), ("0\n2\n", "valid.jsonl: line 2: 'label' is \"2\"")):
        run("--format", "piqa", apart, "--labels", write("bad.lst", labels)).expect(1, sentence)
    run("--format", "piqa", hub, "--labels", path("valid.lst")).expect(1, "hub.jsonl: line 1: a 'label' of its own")
    run("--format", "piqa", apart).expect(1, "valid.jsonl: line 1: 'label' is missing")
    run("--format", "arc", apart).expect(1, "valid.jsonl: line 1: 'question' is missing")
    run(apart).expect(1, "valid.jsonl: line 1: neither 'context' nor 'contexts' (a data set's own file wants its --format)")
    run("--format", "arc", hub, "--labels", path("valid.lst")).expect(1, "'arc' have their labels with them")


@test
def mmlu_by_subject():
    csv = "What is 2 + 2?,3,4,5,6,B\n\"Which, of \"\"these\"\"?\nSay.\",a,b,c,d,A\n"
    hub = [{"question": "What is 2 + 2?", "subject": "abstract_algebra", "choices": list("3456"), "answer": 1},
           {"question": "Which, of \"these\"?\nSay.", "subject": "abstract_algebra", "choices": list("abcd"), "answer": 0}]
    want = run_logged("--format", "mmlu", items("hub.jsonl", hub))
    got = run_logged("--format", "mmlu", write("abstract_algebra_test.csv", csv))
    assert [l["loglikelihoods"] for l in want] == [l["loglikelihoods"] for l in got], (want, got)
    assert [l["line"] for l in got] == [1, 2] and {l["subtask"] for l in got} == {"abstract_algebra"}
    run("--format", "mmlu", write("algebra.csv", csv)).expect(1, "algebra.csv: line 1: no 'subject'")
    run("--format", "mmlu", write("x_test.csv", csv + "a,b\n")).expect(1, "x_test.csv: line 4: CSV: 2 fields")
    few = ["--format", "mmlu", "-k", 1, path("hub.jsonl"), "--examples"]
    run(*few, items("dev.jsonl", [dict(hub[0], question="?")])).expect(0)
    run(*few, write("anatomy_dev.csv", csv)).expect(1, "line 1: 1 examples are wanted of task 'abstract_algebra'; there are 0")


@test
def examples_in_front():
    """Those that Python draws, worded here."""
    train = [{"context": "%s says" % n, "choices": [" yes", " no"], "gold": i % 2}
             for i, n in enumerate(("Ann", "Tom", "the king", "the queen", "she", "he", "the boy"))]
    plain = [{k: v for k, v in c.items() if k != "task"} for c in CHOICES]
    files = items("train.jsonl", train), items("choices.jsonl", plain)
    for seed in (1234, 7):
        draw, fronts = random.Random(seed), []
        for _ in plain:
            fronts.append("".join(e["context"] + e["choices"][e["gold"]] + "\n\n" for e in draw.sample(train, 3)))
        want = run_logged(items("fronted.jsonl", [dict(c, context=f + c["context"]) for f, c in zip(fronts, plain)]))
        got = run_logged("-k", 3, "--seed", seed, "--examples", *files)
        assert same_scores(want, got), (want, got)
    a = run_logged("-k", 2, files[0])
    assert a == run_logged("-k", 2, "--seed", 1234, files[0]) != run_logged("-k", 2, "--seed", 1, files[0])
    run("-k", 7, files[0]).expect(1, "train.jsonl: line 1: 8 examples are wanted; there are 7")
    run("-k", 7, "--examples", files[0], files[0]).expect(1, "line 1: 7 examples are wanted; there are 6")
    run("-k", 1, "--examples", items("ends.jsonl", ENDS), files[0]).expect(1, "ends.jsonl: its examples are of another")
    run("-k", 1, "--examples", write("bad.jsonl", "x"), files[0]).expect(1, "bad.jsonl: line 1: ")
    run("-k", 5, "--examples", items("long.jsonl", [dict(t, context="king " * 500) for t in train]), files[0]).expect(
        1, "train.jsonl: line 1: ", "2048 positions")
    r = run("--json", "--limit", 1, "--cut", "-k", 5, "--examples", path("long.jsonl"), files[0], path("choices.jsonl")).expect(
        0, "train.jsonl: 1 of 1 items lost their first tokens")
    assert [l["cut"] for l in r.lines()] == [1, 1], r
    run("--format", "blimp", "-k", 1, items("blimp.jsonl", [{"sentence_good": "a", "sentence_bad": "b"}] * 3)).expect(
        1, "'blimp' takes no examples")


@test
def usage():
    file = items("choices.jsonl", CHOICES)
    for args, word in ((["--resume", file], "--log"), (["--overwrite", file], "--log"),
                       (["--resume", "--overwrite", "--log", path("x"), file], "--overwrite"), (["--labels", file, file, file], "one file"),
                       (["--examples", file, file], "--few-shot"), (["--format", "glue", file], "arc|blimp"),
                       (["-k", 1, "--example-labels", file, file], "--examples"), (["-k", 256, file], "255"), (["--seed", 2**32, file], "4294967295")):
        run(*args).expect(2, word)


def two_files(many):
    return items("many.jsonl", CHOICES * many), items("ends.jsonl", ENDS)


@once
def uninterrupted(many):
    """Log and scores of a run that nobody stopped."""
    log = path("whole-%d.log" % many)
    r = run("--json", "--by-subtask", "--log", log, *two_files(many)).expect(0)
    return read(log), scores(r)


def scores(r):
    return [{k: v for k, v in l.items() if k != "seconds"} for l in r.lines()]


@test
def killed_and_resumed():
    log, (whole, want) = path("killed.log"), uninterrupted(200)
    for rounds in range(2):
        size = os.path.getsize(log) if rounds else 0
        p = start("eval", "tasks", TINY, "-q", "--log", log, *(["--resume"] if rounds else []), *two_files(200))
        assert wait_for(lambda: os.path.exists(log) and os.path.getsize(log) > size + 5000, p), p.communicate()
        p.send_signal(signal.SIGKILL)
        p.communicate(timeout=60)
        assert p.returncode == -signal.SIGKILL and len(read(log)) < len(whole)
    assert scores(run("--json", "--by-subtask", "--log", log, "--resume", *two_files(200)).expect(0)) == want
    assert read(log) == whole
    # Nothing is left to do: the same scores, from the log.
    assert scores(run("--json", "--by-subtask", "--log", log, "--resume", *two_files(200)).expect(0)) == want
    assert read(log) == whole


@test
def logs_that_end_anywhere():
    whole, want = uninterrupted(8)
    ends = [0, 5, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) // 2, whole.rindex(b"\n", 0, -800) + 30,
            len(whole) - 1]
    for n in ends:
        log = write("cut.log", whole[:n])
        assert scores(run("--json", "--by-subtask", "--log", log, "--resume", *two_files(8)).expect(0)) == want, n
        assert read(log) == whole, n
    # The numbers come from the log, or this would not be seen.
    lines = whole.splitlines(True)
    first = json.loads(lines[1])
    first["loglikelihoods"] = [-1.0 if i == (first["best"] + 1) % 3 else -9.0 for i in range(3)]
    changed = write("changed.log", b"".join([lines[0], json.dumps(first).encode() + b"\n"] + lines[2:]))
    assert scores(run("--json", "--by-subtask", "--log", changed, "--resume", *two_files(8)).expect(0))[0] != want[0]


@test
def logs_of_other_runs():
    whole, _ = uninterrupted(8)
    many, ends = two_files(8)
    log, lines = write("other.log", whole), whole.splitlines(True)

    def refused(*args, sentence, model=TINY):
        r = atom("eval", "tasks", model, "-q", "--log", log, "--resume", *args).expect(1, sentence)
        assert r.out.count(b"\n") <= 2 and r.err.count("\n") == 1, r

    refused("--limit", 5, many, ends, sentence="other.log: line 1 was begun with 'limit' 0, now 5")
    refused("-k", 2, many, ends, sentence="'few_shot' 0, now 2")
    refused(ends, sentence="other.log: line 1 was begun with other contents: 'items'")
    refused(many, many, sentence="was begun with other contents: 'items'")
    refused(many, ends, model=quantized(), sentence="other.log: line 1 was begun with other contents: 'model'")
    assert read(log) == whole
    for bad, sentence in ((b"x\n", "line 1 is not"), (b"notes", "line 1 is not"), (lines[0] + b"x\n", "line 2 is not JSON"),
                          (lines[0] + lines[1] + lines[0], "line 3 is not what a log"),
                          (b"".join(lines[:5] + lines[6:]), "is not what a log"),
                          (lines[0] + lines[2], "is not of the item")):
        write("other.log", bad)
        refused(many, ends, sentence="other.log: " + sentence if sentence[0] == "l" else sentence)
        assert read(log) == bad
    with open(write("held.log", whole)) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        run("--log", path("held.log"), many).expect(1, "held.log: another run")
    assert read(path("held.log")) == whole


@test
def a_log_that_is_there_is_kept():
    whole, _ = uninterrupted(8)
    for data in (whole, whole[:len(whole) // 2], b"notes"):
        log = write("kept.log", data)
        r = run("--log", log, *two_files(8)).expect(1, "kept.log is there already", "--resume", "--overwrite")
        assert read(log) == data and r.out == b"", r
    run("--log", log, "--overwrite", *two_files(8)).expect(1, "kept.log is not a log of 'eval tasks'")
    assert read(log) == b"notes"
    for data in (whole[:len(whole) // 2], b"", b'{"log"'):
        run("--log", write("kept.log", data), "--overwrite", *two_files(8)).expect(0)
        assert read(log) == whole
    run("--log", write("kept.log", b""), *two_files(8)).expect(0)
    assert read(log) == whole
    run("--log", "/dev/null", *two_files(8)).expect(0)


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
    got = logged(log)
    for task, ref in want.items():
        lines = [l["loglikelihoods"] for l in got if l["task"] == task]
        assert len(lines) == 3, task
        for a, b in zip(lines, ref["first_loglikelihoods"]):
            b = b if isinstance(b, list) else [b]
            assert len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) <= 2e-3, (task, a, b)


@test
def logs_spare_what_is_read():
    file = write("spare.jsonl", json.dumps(CHOICES[0]) + "\n")
    more = write("more.jsonl", json.dumps(CHOICES[0]) + "\n")
    for log, rest in ((file, ()), (more, ("-k", 1, "--examples", more))):
        before = read(log)
        atom("eval", "tasks", TINY, "-q", "--log", log, *rest, file).expect(2, "would overwrite")
        assert read(log) == before


main()
