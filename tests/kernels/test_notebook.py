"""Jupyter's habits beyond plain Python. What needs IPython runs with --rootfs; the rest says what happens without."""
import pytest




def test_history_is_there_without_ipython(python):
    python.run("40 + 2")
    python.run("'b';")
    assert python.run("_, Out[1], _1, In[2], _i").main == "(42, 42, 42, \"'b';\", \"'b';\")"
    assert python.run("__").main == "42"


def test_a_name_of_the_tenants_own_is_not_taken(python):
    python.run("1")
    python.run("import builtins; builtins._ = lambda text: text.upper()")
    assert python.run("2").main == "2"
    assert python.run("_('kept')").main == "'KEPT'"


@pytest.mark.parametrize("library", ["try:\n    get_ipython()\nexcept NameError:\n    found = False\nelse:\n    found = True\n"])
def test_a_library_that_asks_for_ipython_does_not_load_it(python, library):
    (python.cwd / "asking.py").write_text(library)
    assert python.run("import asking, sys; asking.found, 'IPython' in sys.modules or asking.found").main in ("(False, False)", "(True, True)")


def test_a_warning_comes_once_in_a_cell_and_again_in_the_next(python):
    code = "import warnings\nfor _n in range(3):\n    warnings.warn('careful')"
    for count in (1, 2):
        assert python.run(code).stderr.decode() == f"<cell {count}>:3: UserWarning: careful\n  warnings.warn('careful')\n"


def test_what_a_thread_of_an_earlier_run_prints_is_in_no_other_run(python):
    python.run("""
import sys, threading, time, logging
go, ended = threading.Event(), threading.Event()
log = logging.getLogger('late'); log.addHandler(logging.StreamHandler(sys.stdout)); log.setLevel(10)
def work():
    print('tail', end='')
    go.wait()
    print('late'); sys.stderr.write('late'); display('late'); log.warning('late')
    inner = threading.Thread(target=lambda: (print('late too'), display('late too'))); inner.start(); inner.join()
    ended.set()
threading.Thread(target=work).start()
""")
    outcome = python.run("print('mine'); go.set(); ended.wait(); time.sleep(0.05)\n"
                         "own = threading.Thread(target=lambda: (print('own'), display('own'))); own.start(); own.join()\nlog.warning('heard')")
    assert outcome.stdout == b"mine\nown\nheard\n"
    assert outcome.stderr == b""
    assert [b["text/plain"] for _, b in outcome.results] == ["'own'"]


def test_a_timer_that_renews_itself_stays_unheard(python):
    python.run("import threading, time\nticks = []\ndef tick():\n    ticks.append(1); print('tick')\n"
               "    if len(ticks) < 200:\n        t = threading.Timer(0.005, tick); t.daemon = True; t.start()\ntick()")
    outcome = python.run("n = len(ticks)\nwhile len(ticks) < n + 3: time.sleep(0.005)\nprint('mine')")
    assert outcome.stdout == b"mine\n"


def test_threads_of_the_run_itself_are_heard(python):
    outcome = python.run("import threading\nt = threading.Thread(target=lambda: print('inside')); t.start(); t.join()")
    assert outcome.stdout == b"inside\n"


def test_multiprocessing_by_spawn_works(python):
    outcome = python.run("import multiprocessing as m, math\nwith m.get_context('spawn').Pool(1) as p: r = p.map(math.factorial, range(5))\nr")
    assert outcome.main == "[1, 1, 2, 6, 24]", outcome.stderr.decode()


def test_classes_of_cells_can_be_pickled_in_both_directions_of_a_pool(python):
    python.run("import pickle\nclass Point:\n    def __init__(self, x): self.x = x\n    def double(self): return Point(2 * self.x)")
    outcome = python.run("from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing\n"
                         "with ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool:\n"
                         "    r = [p.x for p in pool.map(Point.double, [Point(1), Point(2)])]\nr")
    assert outcome.main == "[2, 4]", outcome.stderr.decode()


def test_an_object_that_displays_itself_is_no_main_result(python):
    outcome = python.run("class D:\n    def _ipython_display_(self): print('shown'); display('by itself')\nD()")
    assert outcome.stdout == b"shown\n" and outcome.results == [(False, {"text/plain": "'by itself'"})]


def test_an_interrupt_shows_no_frame_of_the_driver(python):
    python.send("import time\ndef wait():\n    try:\n        time.sleep(60)\n    finally:\n        1 / 0\nprint('begun')\nwait()")
    python.wait_for_output(b"begun")
    python.interrupt()
    lines = python.finish().error[2]
    assert "KeyboardInterrupt" in lines and not any("kernel" in line or "on_sigint" in line for line in lines), lines


@pytest.mark.parametrize("cell", ["!ls", "%timeit 1", "x = !ls", "print?", "%%time\n1"])
def test_without_ipython_its_syntax_is_a_clear_error(python, cell, pytestconfig):
    if pytestconfig.getoption("rootfs"):
        assert python.run(cell).error is None
        return
    name, value, lines = python.run(cell).error
    assert name == "ModuleNotFoundError" and "IPython" in value and "pip install" in value
    assert "kernel" not in "\n".join(lines)
    assert python.run("1").main == "1"


def test_an_ordinary_syntax_error_stays_one(python):
    for cell in ("a = (%s)", "print 'x'", "x = 5 %", "if True:\n%d"):
        assert python.run(cell).error is not None
    assert python.run("print 'x'").error[0] == "SyntaxError"
