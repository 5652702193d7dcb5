"""What every driver must do, whatever its language: the rules of images/kernels/PROTOCOL.md."""
import struct

import pytest
from driver import CONFIGURE, EXECUTE, READY, KernelDied

# One program per language for each rule.
SAY = {"python": "print({!r})", "javascript": "console.log({!r})"}
SAY_ERR = {"python": "import sys; print({!r}, file=sys.stderr)", "javascript": "console.error({!r})"}
SLEEP = {"python": "import time; time.sleep(60)", "javascript": "await new Promise(r => setTimeout(r, 60000))"}
LANGUAGES = ["python", "javascript"]


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def kernel(start, language):
    return start(language)


def test_ready_comes_once_and_first(kernel):
    """A driver says `ready` before anything else, without being asked."""
    assert kernel.read_frame() == (READY, b"")


def test_code_sent_before_ready_is_run(kernel, language):
    """Init does not wait for `ready`: what it sent at once is run."""
    assert kernel.run(SAY[language].format("early")).stdout == b"early\n"


def test_names_persist(kernel, language):
    """A name of one run is there in the next."""
    kernel.run({"python": "x = 20", "javascript": "const x = 20"}[language])
    assert kernel.run("x + 1").main == "21"


def test_output_is_separate_and_complete(kernel, language):
    """stdout and stderr arrive on their own descriptors, all of it before `done`."""
    lots = {"python": "print('y' * 300000)", "javascript": "console.log('y'.repeat(300000))"}[language]
    outcome = kernel.run(SAY[language].format("out") + "\n" + SAY_ERR[language].format("err") + "\n" + lots)
    assert outcome.stdout == b"out\n" + b"y" * 300000 + b"\n"
    assert outcome.stderr == b"err\n"
    assert outcome.error is None and outcome.results == []


def test_output_without_newline_is_flushed(kernel, language):
    """A last line without an end is not lost."""
    code = {"python": "print('tail', end='')", "javascript": "process.stdout.write('tail'); undefined"}[language]
    assert kernel.run(code).stdout == b"tail"


def test_subprocess_output_is_in_order(kernel, language):
    """A child's output stands between the lines its parent printed around it."""
    code = {
        "python": "import subprocess\nprint('a')\nsubprocess.run(['echo', 'b'])\nprint('c')",
        "javascript": "console.log('a'); require('child_process').execSync('echo b', {stdio: 'inherit'}); console.log('c')",
    }[language]
    assert kernel.run(code).stdout == b"a\nb\nc\n"


def test_an_error_has_name_value_and_traceback(kernel, language):
    """An uncaught error goes to stderr and into one `error` frame; the context is kept."""
    code = {"python": "kept = 1\ndef f():\n    raise ValueError('bad')\nf()",
            "javascript": "let kept = 1\nfunction f() {\n  throw new RangeError('bad') }\nf()"}[language]
    outcome = kernel.run(code)
    name, value, lines = outcome.error
    assert name == {"python": "ValueError", "javascript": "RangeError"}[language]
    assert value == "bad"
    assert "\n".join(lines).encode() in outcome.stderr
    assert any("cell" in line and "3" in line for line in lines)
    assert not any("kernel." in line for line in lines), lines
    assert kernel.run("kept").main == "1"


def test_a_syntax_error_is_an_error_and_runs_nothing(kernel, language):
    outcome = kernel.run(SAY[language].format("no") + "\n)(")
    assert outcome.error[0] == "SyntaxError"
    assert outcome.stdout == b""
    assert kernel.run("1 + 1").main == "2"


def test_exit_ends_the_run_and_not_the_kernel(kernel, language):
    exits = {"python": "import sys\nkept = 5\nsys.exit({})\nprint('no')",
             "javascript": "var kept = 5; process.exit({}); console.log('no')"}[language]
    outcome = kernel.run(exits.format(0))
    assert (outcome.error, outcome.stdout) == (None, b"")
    outcome = kernel.run(exits.format(3))
    assert outcome.error[:2] == ("SystemExit", "3") and outcome.stdout == b""
    assert kernel.run("kept").main == "5"


def test_displays_come_in_order_before_the_main_result(kernel):
    outcome = kernel.run("display(1); display(2); 3")
    assert [(is_main, b["text/plain"]) for is_main, b in outcome.results] == [(False, "1"), (False, "2"), (True, "3")]


def test_a_result_beyond_the_frame_limit_is_named(kernel, language):
    """What does not fit into a frame is said, not lost, and ends neither run nor kernel."""
    outcome = kernel.run({"python": "'x' * (5 << 20)", "javascript": "'x'.repeat(5 << 20)"}[language])
    assert "left out" in outcome.main and "4 MiB" in outcome.main
    assert kernel.run("1").main == "1"


def test_top_level_await(kernel, language):
    code = {"python": "import asyncio\nawait asyncio.sleep(0.01)\nz = 4\nz",
            "javascript": "await new Promise(r => setTimeout(r, 10))\nlet z = 4\nz"}[language]
    assert kernel.run(code).main == "4"
    assert kernel.run("z").main == "4"


def test_stdin_is_empty(kernel, language):
    code = {"python": "import sys; sys.stdin.read()",
            "javascript": "require('fs').readFileSync(0, 'utf8')"}[language]
    assert kernel.run(code).main == "''"


def test_children_do_not_inherit_the_control_channel(kernel, language):
    listing = {"python": "import subprocess; subprocess.run('ls -l /proc/self/fd', shell=True, close_fds=False)\nNone",
               "javascript": "require('child_process').execSync('ls -l /proc/self/fd', {stdio: 'inherit'}); undefined"}
    assert b"socket" not in kernel.run(listing[language]).stdout


def test_an_interrupt_during_a_sleep_is_answered(kernel, language):
    """SIGINT during a run: `error` KeyboardInterrupt, `done`, and the context is kept."""
    kernel.run({"python": "kept = 9", "javascript": "const kept = 9"}[language])
    kernel.send(SAY[language].format("begun") + "\n" + SLEEP[language])
    kernel.wait_for_output(b"begun")
    kernel.interrupt()
    outcome = kernel.finish()
    assert outcome.error[0] == "KeyboardInterrupt"
    assert outcome.stdout == b"begun\n"
    assert kernel.run("kept").main == "9"


def test_an_interrupt_between_runs_means_nothing(kernel):
    kernel.run("1")
    kernel.interrupt()
    outcome = kernel.run("2 + 2")
    assert outcome.main == "4" and outcome.error is None


def test_end_of_file_ends_the_driver(kernel):
    kernel.run("1")
    kernel.control.close()
    assert kernel.wait_exit() == 0


def test_an_unknown_frame_ends_the_driver(kernel):
    kernel.run("1")
    kernel.control.sendall(struct.pack("<II", EXECUTE + 1, 0))
    with pytest.raises((KernelDied, ConnectionResetError)):
        kernel.finish()
    assert kernel.wait_exit() != 0


READ_VARIABLE = {"python": "import os; os.environ.get({!r})", "javascript": "process.env[{!r}]"}
ECHO_VARIABLE = {"python": "import os; os.system('echo $' + {!r});", "javascript": "require('child_process').execSync('echo $' + {!r}, {{stdio: 'inherit'}}); undefined"}


def test_configured_variables_are_the_environment(start, language):
    """`configure` sets variables on top of the inherited ones, for the program and for its children."""
    kernel = start(language, {"KEPT": "k", "CHANGED": "old"})
    if kernel.configured:
        kernel = start(language, {"KEPT": "k", "CHANGED": "neu", "ADDED": "ä", "EMPTY": ""})
    else:
        kernel.configure({"CHANGED": "neu", "ADDED": "ä", "EMPTY": ""})
    for name, value in (("KEPT", "k"), ("CHANGED", "neu"), ("ADDED", "ä"), ("EMPTY", "")):
        assert kernel.run(READ_VARIABLE[language].format(name)).main == repr(value)
        assert kernel.run(ECHO_VARIABLE[language].format(name)).stdout.decode() == value + "\n"


@pytest.mark.parametrize("payload", [b"", b"\1\0\0\0", b"\1\0\0\0\1\0\0\0x\1\0\0\0yz", b"\2\0\0\0\1\0\0\0x\0\0\0\0"])
def test_a_malformed_configuration_ends_the_driver(start, language, payload):
    kernel = start(language, configure=False)
    kernel.send_frame(CONFIGURE, payload)
    assert kernel.wait_exit() == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_second_or_late_configuration_adds_variables(start, language, late):
    """Those it had stay, one that comes again has its new value, and the search paths of a tenant are left alone."""
    kernel = start(language, configure=False)
    kernel.configure({"A": "1", "B": "old"})
    if late:
        kernel.run({"python": "import sys; sys.path.append('/mine')", "javascript": "1"}[language])
    kernel.configure({"B": "2"})
    say = {"python": "import os, sys; print(os.environ['A'] + os.environ['B'], '/mine' in sys.path)",
           "javascript": "console.log(process.env.A + process.env.B)"}[language]
    assert kernel.run(say).stdout == {"python": b"12 %s\n" % str(late).encode(), "javascript": b"12\n"}[language]


def test_a_frame_in_many_pieces_is_one_frame(kernel, language):
    code = struct.pack("<I", 1) + SAY[language].format("whole").encode()
    kernel.send("1")
    kernel.finish()
    kernel.last = type(kernel.last)()
    for byte in struct.pack("<II", EXECUTE, len(code)) + code:
        kernel.control.sendall(bytes([byte]))
    assert kernel.finish().stdout == b"whole\n"


def test_four_mebibytes_of_code_run(kernel, language):
    comment = {"python": "#", "javascript": "//"}[language]
    code = (comment + "x" * 1000 + "\n") * 3900 + "40 + 2"
    assert kernel.run(code).main == "42"


def test_non_ascii_text_is_utf8_everywhere(kernel, language):
    outcome = kernel.run({"python": "print('日本 ü')\n'€'", "javascript": "console.log('日本 ü'); '€'"}[language])
    assert outcome.stdout.decode() == "日本 ü\n"
    assert outcome.main == "'€'"


def test_invalid_utf8_in_the_code_is_an_answer(kernel):
    """Any bytes give a valid answer."""
    kernel.run(b"'\xff\xfe'")
    assert kernel.run("1").main == "1"


def test_an_empty_cell_is_fine(kernel):
    for code in ("", "\n\n", "   "):
        outcome = kernel.run(code)
        assert (outcome.error, outcome.results, outcome.stdout, outcome.stderr) == (None, [], b"", b"")


def test_output_written_before_a_kill_is_in_the_pipe(kernel, language):
    kernel.send(SAY[language].format("one") + "\n" + SAY[language].format("two") + "\n" + SLEEP[language])
    kernel.wait_for_output(b"one\ntwo\n")
    kernel.process.kill()
    assert kernel.wait_exit() == -9


def test_modules_written_between_runs_are_found(kernel, language):
    """A file that appears in the working directory can be imported at once."""
    here = kernel.cwd
    code = {"python": "import made; made.value", "javascript": f"require({str(here / 'made.js')!r}).value"}[language]
    assert kernel.run(code).error is not None
    (here / "made.py").write_text("value = 11\n")
    (here / "made.js").write_text("exports.value = 11")
    assert kernel.run(code).main == "11"
