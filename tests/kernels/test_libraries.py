"""The libraries of the image code_latest through the Python driver. Collected only with --rootfs."""
import base64
import os

PNG = b"\x89PNG\r\n"


def is_png(text):
    return base64.b64decode(text).startswith(PNG)


def test_a_data_frame_is_a_table(python):
    outcome = python.run("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    (is_main, bundle), = outcome.results
    assert is_main and bundle["text/plain"] == "   a\n0  1\n1  2"
    assert "<table" in bundle["text/html"] and "<td>2</td>" in bundle["text/html"]


def test_open_figures_become_results(python):
    outcome = python.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert [set(b) for _, b in outcome.results] == [{"text/plain", "image/png"}]
    assert is_png(outcome.results[0][1]["image/png"]) and not outcome.results[0][0]
    assert python.run("plt.get_fignums()").main == "[]"


def test_show_sends_the_figure_where_it_stands(python):
    outcome = python.run("import matplotlib.pyplot as plt\nplt.plot([1]); plt.show()\ndisplay('after')\nplt.plot([2]); plt.show()")
    assert ["image/png" in b for _, b in outcome.results] == [True, False, True]
    assert outcome.stderr == b""


def test_a_figure_as_value_comes_once(python):
    outcome = python.run("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1])\nfig")
    (is_main, bundle), = outcome.results
    assert is_main and is_png(bundle["image/png"])


def test_a_figure_of_a_failed_run_is_not_lost(python):
    outcome = python.run("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")
    assert outcome.error[0] == "ZeroDivisionError"
    assert len(outcome.results) == 1 and "image/png" in outcome.results[0][1]


def test_the_first_plot_does_not_search_for_fonts(python):
    python.run("import matplotlib.font_manager as fm, pathlib, matplotlib")
    assert python.run("list(pathlib.Path(matplotlib.get_cachedir()).glob('fontlist*'))").main == "[]"
    assert python.run("len(fm.fontManager.ttflist) > 10").main == "True"


def test_ipython_display_objects_are_results(python):
    outcome = python.run(
        "from IPython.display import display, HTML, Markdown, JSON, Image, Latex, SVG\n"
        "display(HTML('<b>'), Markdown('# m'))\ndisplay(JSON({'a': 1}), Latex('$x$'))\nSVG('<svg></svg>')")
    bundles = [b for _, b in outcome.results]
    assert [next(m for m in b if m != "text/plain") for b in bundles] == [
        "text/html", "text/markdown", "application/json", "text/latex", "image/svg+xml"]
    assert bundles[0]["text/html"] == "<b>" and bundles[2]["application/json"] == '{"a": 1}'
    assert outcome.stdout == b""


def test_versions_are_the_promised_ones(python, start):
    assert python.run("import sys; sys.version.split()[0]").main == "'3.11.2'"
    assert start("javascript").run("process.version").main == "'v18.20.4'"


def test_preloaded_libraries_have_the_settings_of_a_fresh_import(start):
    forked, executed = start("python", born="data"), start("python", born="exec")
    assert forked.run("import sys; {'numpy', 'pandas', 'matplotlib.pyplot', 'IPython'} - set(sys.modules)").main == "set()"
    code = ("import matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd\n"
            "import hashlib; (sorted((k, str(v)) for k, v in matplotlib.rcParams.items()), plt.get_backend(), plt.get_fignums(), "
            "np.get_printoptions(), pd.describe_option(_print_desc=False), matplotlib.get_configdir(), matplotlib.get_cachedir(), "
            "len(plt.style.available), plt.style.core.USER_LIBRARY_PATHS[0].rpartition('/')[2])")
    one, two = forked.run(code), executed.run(code)
    assert one.error is None and one.main == two.main, (one.stderr, two.stderr)


def test_preloading_made_nothing_in_the_home_directory(start, tmp_path):
    start("python", born="data").run("1")
    assert os.listdir(tmp_path / "home") == []
