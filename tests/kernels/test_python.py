"""The Python driver: what is particular to the language and to being started without `site`."""
import base64

import pytest
from driver import KernelDied


def test_the_namespace_is_main(python):
    """Code runs as __main__, and what it defines can be pickled."""
    assert python.run("__name__, __import__('sys').argv").main == "('__main__', [''])"
    assert python.run("import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))) is A").main == "True"
    assert python.run("import __main__; __main__.A is A").main == "True"


def test_nothing_of_the_driver_is_visible(start):
    assert start("python", born="exec").run("sorted(n for n in dir() if not n.startswith('__'))").main == "[]"


def test_a_semicolon_silences_and_none_is_no_result(python):
    for code in ("1;", "1; # said", "(2,\n 3) ;", "None", "x = 1", "print"[:0]):
        assert python.run(code).results == [], code
    assert python.run("'a;' # b").main == "'a;'"


def test_underscore_is_the_last_value(python):
    python.run("6 * 7")
    assert python.run("_").main == "42"


def test_tracebacks_show_source_of_earlier_cells_and_no_driver(python):
    python.run("def divide(a, b):\n    return a / b")
    outcome = python.run("divide(1, 0)")
    assert outcome.error[2] == [
        "Traceback (most recent call last):",
        '  File "<cell 2>", line 1, in <module>',
        "    divide(1, 0)",
        '  File "<cell 1>", line 2, in divide',
        "    return a / b",
        "            ~~^~~",
        "ZeroDivisionError: division by zero",
    ]


def test_an_error_inside_display_shows_no_driver(python):
    lines = python.run("class B:\n    def _repr_html_(self): return 1 / 0\ndisplay(B())").error[2]
    assert [line for line in lines if line.startswith("  File")] == [
        '  File "<cell 1>", line 3, in <module>', '  File "<cell 1>", line 2, in _repr_html_']


def test_chained_errors_are_whole(python):
    lines = python.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e").error[2]
    assert "KeyError: 'k'" in lines and lines[-1] == "ValueError: v"
    assert "The above exception was the direct cause of the following exception:" in lines


def test_a_syntax_error_is_shown_at_its_place(python):
    assert python.run("a = (\n").error[2] == [
        '  File "<cell 1>", line 1', "    a = (", "        ^", "SyntaxError: '(' was never closed"]


def test_indented_cells_run_as_in_a_notebook(python):
    assert python.run("    a = 1\n    a + 1").main == "2"
    assert python.run("if True:\n  a = 1\n a").error[0] == "IndentationError"


def test_future_imports_hold_for_later_cells(python):
    python.run("from __future__ import annotations")
    assert python.run("def f(x: Undefined): pass\nf.__annotations__").main == "{'x': 'Undefined'}"


def test_input_says_end_of_file(python):
    assert python.run("input('name? ')").error[:2] == ("EOFError", "EOF when reading a line")


def test_exit_forms(python):
    assert python.run("exit()").error is None
    assert python.run("quit(2)").error[:2] == ("SystemExit", "2")
    outcome = python.run("import sys; sys.exit('went wrong')")
    assert outcome.error[:2] == ("SystemExit", "went wrong") and outcome.stderr == b"went wrong\n"


def test_an_endless_loop_is_interrupted(python):
    python.send("kept = 3\nprint('begun')\nwhile True: pass")
    python.wait_for_output(b"begun")
    python.interrupt()
    outcome = python.finish()
    assert outcome.error[0] == "KeyboardInterrupt"
    assert outcome.error[2] == ["Traceback (most recent call last):", '  File "<cell 1>", line 3, in <module>',
                                "    while True: pass", "KeyboardInterrupt"]
    assert python.run("kept").main == "3"


def test_an_interrupted_await_is_cancelled(python):
    python.send("import asyncio\nkept = 1\nprint('begun')\nawait asyncio.sleep(60)")
    python.wait_for_output(b"begun")
    python.interrupt()
    assert python.finish().error[0] == "KeyboardInterrupt"
    assert python.run("await asyncio.sleep(0, kept)").main == "1"


def test_a_handler_of_the_tenant_is_gone_in_the_next_run(python):
    python.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    python.send("print('begun')\nwhile True: pass")
    python.wait_for_output(b"begun")
    python.interrupt()
    assert python.finish().error[0] == "KeyboardInterrupt"


def test_threads_of_an_interrupted_run_end_or_the_kernel_does(python):
    """After an interrupt nothing the run started may go on."""
    python.send("import threading, time\ndef spin():\n    while True: pass\n"
                "threading.Thread(target=spin).start()\nprint('begun')\ntime.sleep(60)")
    python.wait_for_output(b"begun")
    python.interrupt()
    assert python.finish().error[0] == "KeyboardInterrupt"
    assert python.run("import threading; threading.active_count()").main == "1"
    python.send("threading.Thread(target=time.sleep, args=(60,)).start()\nprint('begun')\ntime.sleep(60)")
    python.wait_for_output(b"begun")
    python.interrupt()
    with pytest.raises(KernelDied):
        python.finish()
    assert python.wait_exit() == 1


def test_a_forked_child_never_speaks_for_the_kernel(python):
    outcome = python.run("import os\npid = os.fork()\ndisplay(pid == 0)\nif pid == 0:\n    print('child')\n    1 / 0\n"
                         "os.waitpid(pid, 0)[1] >> 8")
    assert [b["text/plain"] for _, b in outcome.results] == ["False", "1"]
    assert outcome.stdout == b"child\n" and b"ZeroDivisionError" in outcome.stderr and outcome.error is None


@pytest.mark.parametrize("damage", [
    "import sys; sys.stdout = None; sys.stderr = None",
    "import sys; sys.stdout.close(); sys.stderr.close()",
    "import os; os.close(1); os.close(2)",
    "import os; n = os.open('/dev/null', os.O_WRONLY); os.dup2(n, 1); os.dup2(n, 2)",
    "import io, sys; sys.stdout = io.StringIO()",
    "import builtins\nfor n in ('len', 'int', 'isinstance', 'type', 'open', 'str', 'map', 'sum'): setattr(builtins, n, None)",
    "import os, sys; os.getpid = os.write = os.read = None; sys.excepthook = sys.displayhook = None",
    "import sys; sys.path.clear(); sys.meta_path.clear()",
    "import sys; sys.modules.clear()",
    "del __builtins__, __name__",
])
def test_damage_stays_in_the_run_that_did_it(python, damage):
    python.run(damage)
    outcome = python.run("print('fine')\n6 * 7")
    assert (outcome.stdout, outcome.main) == (b"fine\n", "42")


def test_a_dying_kernel_leaves_its_output(python):
    python.send("import os\nprint('last words')\nos._exit(7)")
    with pytest.raises(KernelDied):
        python.finish()
    assert python.wait_exit() == 7
    python.drain()
    assert python.last.stdout == b"last words\n"


def test_an_error_that_fights_back_is_reported(python):
    outcome = python.run("class Evil(Exception):\n    def __str__(self): raise RuntimeError\nraise Evil")
    assert outcome.error[0] == "Evil"
    assert python.run("1").main == "1"


def test_deep_recursion_is_an_error(python):
    assert python.run("def f(): f()\nf()").error[0] == "RecursionError"
    assert python.run("1").main == "1"


def test_a_module_named_like_one_of_the_drivers_needs_harms_nothing(python):
    here = python.cwd
    for name in ("traceback", "token", "json", "textwrap"):
        (here / f"{name}.py").write_text("raise RuntimeError('not the real one')\n")
    assert python.run("1 / 0").error[0] == "ZeroDivisionError"


def test_packages_installed_by_pip_are_found_at_once(python):
    """~/.local/lib/python3.X/site-packages may appear while the kernel runs."""
    assert python.run("import fresh").error[0] == "ModuleNotFoundError"
    outcome = python.run("import pathlib, sys, os\n"
                         "d = pathlib.Path.home() / '.local/lib' / f'python3.{sys.version_info[1]}' / 'site-packages'\n"
                         "d.mkdir(parents=True); (d / 'fresh.py').write_text('value = 5')\nimport fresh\nfresh.value")
    assert outcome.main == "5"


def test_pth_files_are_read_for_editable_installs(python, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "editable.py").write_text("value = 6")
    outcome = python.run("import pathlib, sys\n"
                         "d = pathlib.Path.home() / '.local/lib' / f'python3.{sys.version_info[1]}' / 'site-packages'\n"
                         f"d.mkdir(parents=True); (d / 'e.pth').write_text({str(tmp_path / 'elsewhere')!r})\n"
                         "import editable\neditable.value")
    assert outcome.main == "6", outcome.error


def test_source_of_a_cell_can_be_inspected(python):
    python.run("def f(x):\n    return x")
    assert python.run("import inspect; inspect.getsource(f)").main == repr("def f(x):\n    return x")


def test_rich_forms_come_as_mime_types(python):
    bundle = python.run(
        "class R:\n"
        "    def __repr__(self): return 'R!'\n"
        "    def _repr_html_(self): return '<i>r</i>'\n"
        "    def _repr_markdown_(self): return '*r*'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def _repr_jpeg_(self): return None\n"
        "    def _repr_svg_(self): return '<svg/>'\n"
        "    def _repr_latex_(self): return '$r$'\n"
        "    def _repr_json_(self): return {'r': [1, None]}\n"
        "R()").results[0][1]
    assert bundle == {
        "text/plain": "R!", "text/html": "<i>r</i>", "text/markdown": "*r*", "text/latex": "$r$",
        "image/svg+xml": "<svg/>", "image/png": base64.b64encode(b"\x89PNG").decode(), "application/json": '{"r": [1, null]}'}


def test_a_mime_bundle_wins(python):
    bundle = python.run(
        "class V:\n"
        "    def __repr__(self): return 'V'\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'application/vnd.vegalite.v5+json': {'mark': 'bar'}, 'text/plain': 'chart'}, {}\n"
        "V()").results[0][1]
    assert bundle == {"text/plain": "chart", "application/vnd.vegalite.v5+json": '{"mark": "bar"}'}


def test_classes_and_mocks_are_not_displayable(python):
    assert python.run("class H:\n    def _repr_html_(self): return 'x'\nH").results[0][1].keys() == {"text/plain"}
    assert python.run("from unittest.mock import MagicMock\nMagicMock()").results[0][1].keys() == {"text/plain"}


def test_raw_display_sends_the_types_given(python):
    outcome = python.run("display({'text/html': '<b>', 'image/png': b'x'}, raw=True)")
    assert outcome.results == [(False, {"text/html": "<b>", "image/png": "eA=="})]


def test_multiprocessing_by_fork_works(python):
    outcome = python.run("import multiprocessing as m\ndef sq(x): return x * x\n"
                         "with m.get_context('fork').Pool(2) as p: r = p.map(sq, range(5))\nr")
    assert outcome.main == "[0, 1, 4, 9, 16]"


def test_display_from_threads_keeps_frames_whole(python):
    outcome = python.run("import threading\n"
                         "ts = [threading.Thread(target=lambda: [display('x' * 5000) for _ in range(50)]) for _ in range(4)]\n"
                         "[t.start() for t in ts]; [t.join() for t in ts];")
    assert len(outcome.results) == 200 and outcome.error is None


def test_the_environment_is_the_sessions(start):
    kernel = start("python", {"GREETING": "hi", "PYTHONPATH": "/some/where"})
    assert kernel.run("import os, sys; os.environ['GREETING'], '/some/where' in sys.path, os.environ['MPLBACKEND']").main == \
        "('hi', True, 'Agg')"


def test_little_is_imported_at_start(start):
    """Start-up time is on the path of the first run of every session."""
    extra = start("python", born="exec").run("import sys; {'os', 'json', 're', 'ast', 'traceback', 'asyncio', 'socket', 'site'} & set(sys.modules)")
    assert extra.main == "set()"


def test_sources_of_earlier_cells_survive_a_cleared_cache(python):
    python.run("def fails():\n    raise ValueError('here')")
    python.run("import linecache, inspect; linecache.clearcache()")
    assert "    raise ValueError('here')\n" in python.run("fails()").stderr.decode()
    assert python.run("inspect.getsource(fails)").main == repr("def fails():\n    raise ValueError('here')")
