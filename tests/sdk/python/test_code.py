"""session.code: results, logs, failures, contexts, times."""
import json
import time

import pytest


def run(session, code, language="python", **more):
    return session.code.run_code(code, language, **more)


def test_stdout_is_the_result_of_code_that_prints(session):
    result = run(session, "print('a')\nprint('b')")
    assert result.success and result.result == "a\nb\n" and result.logs.stdout == ["a\nb\n"] and result.logs.stderr == []
    assert result.request_id and result.error_message == ""


def test_a_main_result_hides_stdout(session):
    result = run(session, "print('printed')\n6 * 7")
    assert result.result == "42" and result.logs.stdout == ["printed\n"]
    assert [r.is_main_result for r in result.results] == [True]


def test_none_and_undefined_are_no_results(session):
    assert run(session, "x = 1\nNone").results == []
    assert run(session, "var y = 1; undefined", "javascript").results == []
    assert run(session, "").success and run(session, "# nothing").success


@pytest.mark.parametrize("alias, language", [("Python", "python"), (" py ", "python"), ("python3", "python"), ("JS", "javascript"), ("Node", "javascript"), ("nodejs", "javascript")])
def test_languages_by_any_name(session, alias, language):
    assert run(session, {"python": "print(1)", "javascript": "console.log(1)"}[language], alias).result == "1\n"


def test_run_and_execute_are_the_same(session):
    assert session.code.run("print(1)", "python").result == "1\n"
    assert session.code.execute("print(1)", "python").result == "1\n"


def test_names_live_on_in_both_languages(session):
    run(session, "import math\ndef area(r): return math.pi * r * r\nradius = 2")
    assert run(session, "round(area(radius), 2)").result == "12.57"
    for i in range(3):
        result = run(session, f"const fs = require('fs'); let n = {i}; n + 1", "javascript")
        assert result.success and result.result == str(i + 1)


def test_the_count_goes_up_by_one(session):
    first = run(session, "1").execution_count
    assert run(session, "2").execution_count == first + 1 and first >= 1


@pytest.mark.parametrize("code, language, said", [
    ("1/0", "python", "ZeroDivisionError: division by zero"), ("print(nonexistent_variable)", "python", "name 'nonexistent_variable' is not defined"),
    ("def f(:\n pass", "python", "SyntaxError"), ("raise ValueError('ü \"quoted\"')", "python", "ValueError"),
    ("throw new TypeError('bad')", "javascript", "TypeError: bad"), ("let = ;", "javascript", "SyntaxError"), ("missing()", "javascript", "ReferenceError"),
])
def test_failed_code_is_a_failed_result_with_the_reason(session, code, language, said):
    result = run(session, "print('before')\n" * (language == "python" and "def f" not in code) + code, language)
    assert not result.success and said in result.error_message
    text = json.loads(result.error_message)
    assert said.split(":")[0] in text["executionError"] and said.split(":")[0] in "".join(text["stderr"]) and len(text["traceId"]) == 32
    assert run(session, "print('goes on')" if language == "python" else "console.log('goes on')", language).result == "goes on\n"


def test_system_exit_and_a_dead_interpreter(session):
    assert run(session, "kept = 1\nimport sys; sys.exit(3)").success is False
    assert run(session, "kept").result == "1"
    result = run(session, "import os; os._exit(7)")
    assert not result.success and "exit code 7" in result.error_message
    result = run(session, "print('anew')")
    assert result.success and result.logs.stdout == ["anew\n"] and "started anew" in result.logs.stderr[0]


def test_a_run_that_takes_too_long_is_ended_with_its_output(session):
    began = time.monotonic()
    result = run(session, "print('so far', flush=True)\nimport time\ntime.sleep(30)", timeout_s=2)
    assert not result.success and time.monotonic() - began < 10
    text = json.loads(result.error_message)
    assert "timed out after 2 s" in text["executionError"] and text["stdout"] == ["so far\n"]


def test_pending_timers_do_not_hold_a_run(session):
    result = run(session, "console.log('now'); setTimeout(() => console.log('late'), 5000); 'done'", "javascript", timeout_s=10)
    assert result.success and result.logs.stdout == ["now\n"] and result.result == "'done'"


@pytest.mark.parametrize("language", ["r", "java"])
def test_a_language_that_is_not_there(session, language):
    result = run(session, "1", language)
    assert not result.success and f"language {language} is not available" in result.error_message


def test_unsupported_languages_are_refused_by_the_client(session):
    assert "Unsupported language" in run(session, "1", "cobol").error_message


def test_rich_results_by_type(make_session):
    session = make_session()
    result = run(session, """
from IPython.display import display, HTML, Markdown, SVG, Latex, JSON
display(HTML("<h1>Title</h1>"))
display(Markdown("# Title"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'></svg>"))
display(Latex(r"$\\frac{1}{2}$"))
display(JSON({"a": [1, 2]}))
""")
    assert result.success, result.error_message
    html, markdown, svg, latex, data = result.results
    assert html.html == "<h1>Title</h1>" and markdown.markdown == "# Title" and svg.svg.startswith("<svg") and "frac{1}{2}" in latex.latex
    assert data.json == {"a": [1, 2]} and not any(r.is_main_result for r in result.results)


def test_a_table_and_a_plot(make_session):
    session = make_session()
    result = run(session, """
import pandas as pd, matplotlib.pyplot as plt
plt.plot([1, 2, 3]); plt.show()
pd.DataFrame({"name": ["Ann", "Bo"], "age": [30, 25]})
""")
    assert result.success, result.error_message
    assert any(r.png and r.png.startswith("iVBOR") for r in result.results)
    table = [r for r in result.results if r.is_main_result]
    assert len(table) == 1 and "<table" in table[0].html and "Ann" in table[0].text


def test_a_vega_chart_with_its_text(session):
    result = run(session, """
class Chart:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"application/vnd.vegalite.v4+json": {"mark": "bar"}, "text/plain": "chart"}
Chart()
""")
    assert result.success and result.results[0].chart == {"mark": "bar"} and result.result == "chart"


def test_output_of_any_bytes_and_scripts(session):
    assert run(session, "print('äöü 漢字 🎉 \"q\" \\\\ </script>')").result == "äöü 漢字 🎉 \"q\" \\ </script>\n"
    result = run(session, "import sys; sys.stdout.buffer.write(b'\\xff\\xfe ok\\n')\nNone")
    assert result.success and result.logs.stdout == ["\ufffd\ufffd ok\n"]
    assert run(session, "import sys; print('e', file=sys.stderr)").logs.stderr == ["e\n"]


def test_output_that_is_cut_says_so(session):
    result = run(session, "print('x' * 3_000_000)")
    assert result.success and len(result.logs.stdout[0]) < 3_000_000 and "3000001 bytes" in result.logs.stderr[0]


def test_a_file_goes_between_languages_and_tools(session):
    session.file_system.write_file("/workspace/data.csv", "x,y\n1,2\n")
    assert run(session, "print(open('data.csv').read().splitlines()[1])").result == "1,2\n"
    assert run(session, "require('fs').readFileSync('/workspace/data.csv', 'utf8').length", "javascript").result == "8"


def test_sessions_are_apart(make_session):
    first, second = make_session(), make_session()
    run(first, "mine = 1")
    assert not run(second, "mine").success
