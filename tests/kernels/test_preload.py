"""Kernels forked from one preloaded process, as a zygote forks them: what they share and what they must not."""
import ast
import pathlib

RANDOM = """
import os, random, secrets, ssl, tempfile, uuid, multiprocessing.synchronize as s, multiprocessing.process as p, sqlite3
made = [random.random(), random.getrandbits(64), secrets.token_hex(), os.urandom(8), ssl.RAND_bytes(8), uuid.uuid1().clock_seq,
        str(uuid.uuid4()), next(tempfile._get_candidate_names()), next(s.SemLock._rand), bytes(p.current_process().authkey),
        sqlite3.connect(':memory:').execute('select random()').fetchone()]
try:
    import numpy as np, pandas as pd
    made += [np.random.rand(), np.random.default_rng().random(), np.random.SeedSequence().entropy,
             list(pd.Series(range(1000)).sample(5))]
except ImportError:
    pass
made
"""


def numbers(kernel):
    kernel.run("import os\nos.getpid = lambda: 7")  # as in two namespaces, where ids are equal
    outcome = kernel.run(RANDOM)
    assert outcome.error is None, outcome.stderr.decode()
    return ast.literal_eval(outcome.main)


def test_no_two_children_draw_the_same_numbers(start, flavour):
    first, second = numbers(start("python", born=flavour)), numbers(start("python", born=flavour))
    equal = [index for index, (a, b) in enumerate(zip(first, second)) if a == b]
    assert equal == [], [first[index] for index in equal]
    assert len(first) >= (11 if flavour == "min" else 15)


def test_children_do_share_what_nobody_seeds(start, flavour):
    """The check above can fail: these are children of one process, as the string hash seed and the layout of memory show."""
    first, second = start("python", born=flavour), start("python", born=flavour)
    shared = "hash('the same'), id(object), id(__import__('random')._inst)"
    assert first.run(shared).main == second.run(shared).main
    assert first.run("import random; random.random()").main != second.run("import random; random.random()").main


def test_the_environment_is_the_zygotes_and_the_configured_one_on_top(start, flavour):
    kernel = start("python", {"GREETING": "hi", "TZ": "Asia/Tokyo", "PYTHONPATH": "/some/where"}, born=flavour)
    code = ("import os, subprocess, sys, time\n"
            "seen = dict(line.split('=', 1) for line in subprocess.run('env', capture_output=True, text=True).stdout.split())\n"
            "None, sorted(seen), time.tzname, '/some/where' in sys.path")
    _, names, zone, found = ast.literal_eval(kernel.run(code).main)
    assert set(names) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"GREETING", "HOME", "LANG", "LC_ALL", "MPLBACKEND", "PATH", "PYTHONPATH", "TZ"}
    assert zone == ("JST", "JST") and found
    assert kernel.run("os.path.expanduser('~') == os.environ['HOME'], any(p.startswith(os.environ['HOME']) for p in sys.path)").main == \
        "(True, True)"


def test_a_child_has_one_thread_and_no_descriptor_of_the_zygote(start, flavour):
    """0 to 2, the control channel, spares of 1 and 2, and nothing of the zygote's."""
    kernel = start("python", born=flavour)
    assert kernel.run("import os; len(os.listdir('/proc/self/task'))").main == "1"
    assert kernel.run("sorted(os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in os.listdir('/proc/self/fd') "
                      "if os.path.exists(f'/proc/self/fd/{n}'))").main == \
        "['/dev/null', 'pipe', 'pipe', 'pipe', 'pipe', 'socket']"


def test_paths_and_streams_are_those_of_an_executed_kernel(start, flavour):
    code = ("import sys; sys.path[0], sys.path[1:-3], sys.argv, __name__, sys.flags, sys.stdout.name, sys.stdout.mode, sys.stdin.name, "
            "sys.stdout.line_buffering, sys.stderr.errors, sys.meta_path[0].__name__, sys.meta_path[-1].__name__, sys.executable, sys.warnoptions")
    assert start("python", born=flavour).run(code).main == start("python", born="exec").run(code).main


def test_a_child_keeps_little_memory_to_itself(start, flavour):
    """What a fork does not share is what an idle session costs."""
    kernel = start("python", born=flavour)
    kernel.read_frame()
    pid = kernel.process.pid
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty", "Private_Clean")))
    print(f"private memory of an idle child, {flavour}: {private} KiB")
    assert private < {"min": 2560, "data": 4608}[flavour]


def test_a_garbage_collection_copies_little(start, flavour):
    """The zygote's objects are frozen: a collection does not write to their pages."""
    kernel = start("python", born=flavour)
    code = ("import gc, re\n"
            "def private():\n"
            "    return sum(map(int, re.findall(r'Private_Dirty: +(\\d+)', open('/proc/self/smaps_rollup').read())))\n"
            "before = private(); gc.collect(); private() - before")
    assert int(kernel.run(code).main) < 3072
