# SPDX-License-Identifier: Apache-2.0
"""Tests of the program from outside: each function given to @test prints a line and counts."""
import atexit
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time

ATOM = os.environ.get("ATOM", "build/atom")
TINY = "models/tiny"
COMMANDS = ["quantize", "export", "eval", "ablate", "generate", "inspect", "tokenize", "sample-calib", "bench"]
tests = []


class Skip(Exception):
    pass


def test(f):
    tests.append(f)
    return f


def main():
    """All tests, or those that the command line names; TIMES=1 says how long each took."""
    failed = 0
    for f in [t for t in tests if t.__name__ in sys.argv[1:] or not sys.argv[1:]]:
        name, began = f.__name__, time.time()
        try:
            f()
            print("ok %s (%.1f s)" % (name, time.time() - began) if os.environ.get("TIMES") else "ok " + name)
        except Skip as e:
            print("skip %s: %s" % (name, e))
        except Exception as e:  # a failure is a line, not the end
            failed += 1
            where = sys.exc_info()[2].tb_next
            print("not ok %s: line %d: %s: %s" % (name, where.tb_lineno, type(e).__name__, e))
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


class Run:
    def __init__(self, args, p):
        self.args, self.rc, self.out, self.err = args, p.returncode, p.stdout, p.stderr.decode("utf-8", "replace")

    def __str__(self):
        return "%s: exit status %s, stdout %r, stderr %r" % (self.args, self.rc, self.out[-300:], self.err[-1500:])

    def expect(self, rc, *words):
        """The exit status, and words that standard error must hold."""
        assert self.rc == rc, "%s; expected %d" % (self, rc)
        for w in words:
            assert w in self.err, "%s; expected %r on stderr" % (self, w)
        if rc:
            assert self.err.strip(), "%s; expected a sentence" % self
        return self

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return [json.loads(l) for l in self.out.splitlines()]


def atom(*args, stdin=b"", before=None, stdout=subprocess.PIPE, timeout=300):
    args = [a if isinstance(a, bytes) else str(a) for a in args]
    p = subprocess.run([ATOM] + args, input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=timeout,
                       preexec_fn=before)
    return Run(args, p)


def shell(command, timeout=120):
    """A line for bash; $ATOM is the program."""
    p = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                       stdin=subprocess.DEVNULL, env=dict(os.environ, ATOM=ATOM))
    return Run(command, p)


def start(*args):
    return subprocess.Popen([ATOM] + [str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL)


def wait_for(condition, process, seconds=60):
    """True when the condition came while the process ran."""
    end = time.time() + seconds
    while process.poll() is None and time.time() < end:
        if condition():
            return True
        time.sleep(0.001)
    return False


_scratch = tempfile.mkdtemp(prefix="atom-cli-")
atexit.register(shutil.rmtree, _scratch, True)


def path(name):
    return os.path.join(_scratch, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path(name)


def read(name):
    with open(name, "rb") as f:
        return f.read()


_made = {}


def once(f):
    def made(*args):
        key = (f.__name__,) + args
        if key not in _made:
            _made[key] = f(*args)
        return _made[key]
    return made


@once
def text():
    """A file of about 2000 tokens that the model wrote."""
    r = atom("generate", TINY, "--prompt", "The", "--max-tokens", 1990, "--temperature", 1, "--seed", 7, "--ignore-eos")
    r.expect(0)
    return write("text.txt", r.out)


@once
def quantized():
    """A small quantized checkpoint."""
    out = path("tiny-w4a4")
    atom("quantize", TINY, "-o", out, "--calib", text(), "--samples", 4, "--window", 64, "-q").expect(0)
    return out


def copy_model(name, source=TINY):
    shutil.copytree(source, path(name))
    for f in os.listdir(path(name)):
        os.chmod(os.path.join(path(name), f), 0o644)
    return path(name)


def full_device():
    """A device of our own that is always full: one that a failing test replaces by a file is no loss."""
    name = path("full")
    try:
        if not os.path.exists(name):
            os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        open(name, "wb").close()
    except OSError:
        raise Skip("no device can be made here")
    return name


def add_tensor(model, name, shape=(4,)):
    """Puts a float32 tensor of zeros into model.safetensors."""
    file = os.path.join(model, "model.safetensors")
    data = read(file)
    n = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:8 + n]), data[8 + n:]
    size = 4
    for d in shape:
        size *= d
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + size]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(file, "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head + body + bytes(size))


def set_config(model, **fields):
    file = os.path.join(model, "config.json")
    config = json.loads(read(file))
    for k, v in fields.items():
        if v is None:
            config.pop(k, None)
        else:
            config[k] = v
    with open(file, "w") as f:
        json.dump(config, f)
