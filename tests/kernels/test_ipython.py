"""IPython's shell in the Python driver of the image code_latest. Collected only with --rootfs."""
import base64

import pytest


def shown(outcome):
    return [bundle["text/plain"] for _, bundle in outcome.results]


def test_the_names_and_the_history_go_on_over_the_switch(python):
    python.run("x = 20")
    python.run("x + 1")
    assert python.run("!echo $x {x + 5}").stdout == b"20 25\n"
    assert python.run("_, Out[2], _2, In[1], x").main == "(21, 21, 21, 'x = 20', 20)"
    assert python.run("In[3]").main == "'!echo $x {x + 5}'" or python.run("In[3]").main.startswith('"get_ipython().system')
    assert python.run("get_ipython().user_ns is globals()").main == "True"


def test_commands_write_to_the_descriptors_in_order(python):
    outcome = python.run("print('a', end=' ')\n!echo b; echo c >&2\nprint('d')")
    assert (outcome.stdout, outcome.stderr) == (b"a b\nd\n", b"c\n")
    assert python.run("!exit 3").error is None
    assert python.run("_exit_code").main == "3"
    assert python.run("files = !printf 'one\\ntwo\\n'\nfiles.n, list(files)").main == "('one\\ntwo', ['one', 'two'])"


def test_magics_for_lines_and_cells(python):
    assert python.run("%%time\nkept = 7\nprint('in')").stdout.startswith(b"in\nCPU times:")
    assert python.run("kept").main == "7"
    assert b"per loop" in python.run("%timeit -n 5 -r 1 kept").stdout
    assert python.run("%%bash\necho from $((1 + 2))").stdout == b"from 3\n"
    assert python.run("%%writefile made.py\nvalue = 4\n").stdout == b"Writing made.py\n"
    assert python.run("import made; made.value").main == "4"
    assert python.run("%cd /usr").stdout == b"/usr\n"
    assert python.run("pwd").main == "'/usr'"
    assert python.run("ls -d /usr").stdout.split() == [b"/usr/"]
    assert python.run("%%capture said\nprint('hidden'); display(1)").stdout == b""
    assert python.run("said.stdout, len(said.outputs)").main == "('hidden\\n', 1)"


def test_help_is_a_result(python):
    python.run("def documented():\n    'What it is for.'\n    return 1")
    assert "What it is for." in shown(python.run("documented?"))[0]
    assert "return 1" in shown(python.run("documented??"))[0]


def test_displays_of_magics_are_results(python):
    assert python.run("%%html\n<b>x</b>").results[0][1]["text/html"] == "<b>x</b>\n"
    assert python.run("%%javascript\nalert(1)").results[0][1]["application/javascript"] == "alert(1)\n"
    assert python.run("%%latex\n$x$").results[0][1]["text/latex"] == "$x$\n"
    assert "<svg/>" in python.run("%%svg\n<svg/>").results[0][1]["image/svg+xml"]


def test_an_error_below_a_magic_is_the_runs_error(python):
    name, value, lines = python.run("%%time\n1 / 0").error
    assert (name, value) == ("ZeroDivisionError", "division by zero")
    outcome = python.run("%nosuchmagic")
    assert outcome.error[0] == "UsageError" and "nosuchmagic" in outcome.error[1]
    (python.cwd / "broken.py").write_text("def f():\n    raise KeyError('deep')\nf()\n")
    lines = python.run("%run broken.py").error[2]
    assert lines[-1] == "KeyError: 'deep'" and not any("IPython" in line for line in lines), lines
    assert python.run("1").main == "1"


def test_an_interrupted_command_keeps_the_context(python):
    python.run("kept = 1")
    python.send("print('begun')\n!sleep 60")
    python.wait_for_output(b"begun")
    python.interrupt()
    outcome = python.finish()
    assert outcome.error[0] == "KeyboardInterrupt"
    assert python.run("kept").main == "1"


def test_all_expressions_are_shown_when_asked_for(python):
    python.run("from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.ast_node_interactivity = 'all'\nget_ipython();")
    outcome = python.run("1\nx = 5\n2\n'end'")
    assert [(m, b["text/plain"]) for m, b in outcome.results] == [(False, "1"), (False, "2"), (True, "'end'")]


def test_inline_figures_take_the_configured_format(python):
    outcome = python.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1]);")
    assert set(outcome.results[0][1]) == {"text/plain", "image/png"}
    outcome = python.run("%config InlineBackend.figure_formats = ['svg']\nplt.plot([1]);")
    assert set(outcome.results[0][1]) == {"text/plain", "image/svg+xml"} and "<svg" in outcome.results[0][1]["image/svg+xml"]


def test_formatters_registered_for_a_type_are_used(python):
    python.run("class T: pass\nget_ipython().display_formatter.formatters['text/html'].for_type(T, lambda t: '<t>')")
    assert python.run("T()").results[0][1]["text/html"] == "<t>"


def test_extensions_see_their_events(python):
    """autoreload imports a changed module again before the next cell."""
    (python.cwd / "changing.py").write_text("value = 1\n")
    python.run("%load_ext autoreload\n%autoreload 2\nimport changing, os")
    assert python.run("changing.value").main == "1"
    python.run("with open('changing.py', 'w') as f: f.write('value = 2222\\n')\nos.utime('changing.py', (2e9, 2e9))")
    assert python.run("changing.value").main == "2222"


def test_exit_takes_a_status_after_the_switch_too(python):
    python.run("%who")
    assert python.run("exit(3)").error[:2] == ("SystemExit", "3")


def test_nothing_is_written_to_the_home_directory_before_it_is_needed(python, tmp_path):
    python.run("!true")
    python.run("%timeit -n1 -r1 1")
    assert list((tmp_path / "home").iterdir()) == []


def test_text_is_broken_as_in_a_notebook_before_and_after_the_switch(python):
    values = ("list(range(40))", "{'k' * 30: list(range(20)), 'b': {3, 1, 2}}", "print, int, ValueError('v')", "__import__('collections').OrderedDict(a=1)",
              "(1,), [], {}, set(), frozenset({2})", "'x' * 200", "[[1.5] * 30] * 3", "range(3), slice(1), ..., None")
    before = [python.run(value).main for value in values]
    python.run("%who")
    assert [python.run(value).main for value in values] == before
    assert before[0].count("\n") == 39


@pytest.mark.parametrize("code", ["Image(data=b'\\x89PNG\\r\\n\\x1a\\n', format='png')"])
def test_pictures_of_ipython_are_results(python, code):
    outcome = python.run(f"from IPython.display import Image\n{code}")
    assert base64.b64decode(outcome.results[0][1]["image/png"]).startswith(b"\x89PNG")
