"""What every driver must do, whatever its language: the rules of images/kernels/PROTOCOL.md."""
import struct

import pytest
from driver import CONFIGURE, EXECUTE, READY, KernelDied


@pytest.fixture
def kernel(start, language):
    return start(language)


@pytest.fixture
def phrase(phrases):
    """phrase(name, what for {}): a program of the driver's language, from phrases/."""
    return lambda name, *texts: phrases[name].format(*texts)


def test_ready_comes_once_and_first(kernel):
    """A driver says `ready` before anything else, without being asked."""
    assert kernel.read_frame() == (READY, b"")


def test_code_sent_before_ready_is_run(kernel, phrase):
    """Init does not wait for `ready`: what it sent at once is run."""
    assert kernel.run(phrase("say", "early")).stdout == b"early\n"


def test_names_persist(kernel, phrase):
    """A name of one run is there in the next."""
    kernel.run(phrase("set_x_to_20"))
    assert kernel.run(phrase("x_plus_1")).main == "21"


def test_output_is_separate_and_complete(kernel, phrase):
    """stdout and stderr arrive on their own descriptors, all of it before `done`."""
    outcome = kernel.run("\n".join([phrase("say", "out"), phrase("say_error", "err"), phrase("say_much")]))
    assert outcome.stdout == b"out\n" + b"y" * 300000 + b"\n"
    assert outcome.stderr == b"err\n"
    assert outcome.error is None and outcome.results == []


def test_output_without_newline_is_flushed(kernel, phrase):
    """A last line without an end is not lost."""
    assert kernel.run(phrase("say_without_end")).stdout == b"tail"


def test_subprocess_output_is_in_order(kernel, phrase):
    """A child's output stands between the lines its parent printed around it."""
    assert kernel.run(phrase("child_between")).stdout == b"a\nb\nc\n"


def test_an_error_has_name_value_and_traceback(kernel, phrase):
    """An uncaught error goes to stderr and into one `error` frame; the context is kept."""
    outcome = kernel.run(phrase("fail"))
    name, value, lines = outcome.error
    assert name == phrase("fail_name")
    assert value == "bad"
    assert "\n".join(lines).encode() in outcome.stderr
    assert any("cell" in line and "3" in line for line in lines)
    assert not any("kernel." in line for line in lines), lines
    assert kernel.run(phrase("kept")).main == "1"


def test_a_syntax_error_is_an_error_and_runs_nothing(kernel, phrase):
    outcome = kernel.run(phrase("say", "no") + "\n" + phrase("syntax_error"))
    assert outcome.error[0] == phrase("syntax_error_name")
    assert outcome.stdout == b""
    assert kernel.run(phrase("sum")).main == "2"


def test_exit_ends_the_run_and_not_the_kernel(kernel, phrase):
    outcome = kernel.run(phrase("exit", 0))
    assert (outcome.error, outcome.stdout) == (None, b"")
    outcome = kernel.run(phrase("exit", 3))
    assert outcome.error[:2] == ("SystemExit", "3") and outcome.stdout == b""
    assert kernel.run(phrase("kept")).main == "5"


def test_displays_come_in_order_before_the_main_result(kernel, phrase):
    outcome = kernel.run(phrase("display_two_and_value"))
    assert [(is_main, b["text/plain"]) for is_main, b in outcome.results] == [(False, "1"), (False, "2"), (True, "3")]


def test_a_result_beyond_the_frame_limit_is_named(kernel, phrase):
    """What does not fit into a frame is said, not lost, and ends neither run nor kernel."""
    outcome = kernel.run(phrase("too_large"))
    assert "left out" in outcome.main and "4 MiB" in outcome.main
    assert kernel.run(phrase("number", 1)).main == "1"


def test_top_level_await(kernel, phrase):
    assert kernel.run(phrase("await_then_z")).main == "4"
    assert kernel.run(phrase("z")).main == "4"


def test_stdin_is_empty(kernel, phrase):
    assert kernel.run(phrase("read_stdin")).main == phrase("empty_text")


def test_children_do_not_inherit_the_control_channel(kernel, phrase):
    listing = kernel.run(phrase("list_descriptors_of_child")).stdout
    assert b"/dev/null" in listing and b"socket" not in listing


def test_an_interrupt_during_a_sleep_is_answered(kernel, phrase):
    """SIGINT during a run: `error` KeyboardInterrupt, `done`, and the context is kept."""
    kernel.run(phrase("set_kept", 9))
    kernel.send(phrase("say", "begun") + "\n" + phrase("sleep_a_minute"))
    kernel.wait_for_output(b"begun")
    kernel.interrupt()
    outcome = kernel.finish()
    assert outcome.error[0] == "KeyboardInterrupt"
    assert outcome.stdout == b"begun\n"
    assert kernel.run(phrase("kept")).main == "9"


def test_an_interrupt_between_runs_means_nothing(kernel, phrase):
    kernel.run(phrase("number", 1))
    kernel.interrupt()
    outcome = kernel.run(phrase("number", 4))
    assert outcome.main == "4" and outcome.error is None


def test_end_of_file_ends_the_driver(kernel, phrase):
    kernel.run(phrase("number", 1))
    kernel.control.close()
    assert kernel.wait_exit() == 0


def test_an_unknown_frame_ends_the_driver(kernel, phrase):
    kernel.run(phrase("number", 1))
    kernel.control.sendall(struct.pack("<II", EXECUTE + 1, 0))
    with pytest.raises((KernelDied, ConnectionResetError)):
        kernel.finish()
    assert kernel.wait_exit() != 0


def test_configured_variables_are_the_environment(start, language, phrase):
    """`configure` sets variables on top of the inherited ones, for the program and for its children."""
    kernel = start(language, {"KEPT": "k", "CHANGED": "old"})
    if kernel.configured:
        kernel = start(language, {"KEPT": "k", "CHANGED": "neu", "ADDED": "ä", "EMPTY": ""})
    else:
        kernel.configure({"CHANGED": "neu", "ADDED": "ä", "EMPTY": ""})
    for name, value in (("KEPT", "k"), ("CHANGED", "neu"), ("ADDED", "ä"), ("EMPTY", "")):
        assert kernel.run(phrase("read_variable", name)).main == phrase("shown_text", value)
        assert kernel.run(phrase("echo_variable", name)).stdout.decode() == value + "\n"


@pytest.mark.parametrize("payload", [b"", b"\1\0\0\0", b"\1\0\0\0\1\0\0\0x\1\0\0\0yz", b"\2\0\0\0\1\0\0\0x\0\0\0\0"])
def test_a_malformed_configuration_ends_the_driver(start, language, payload):
    kernel = start(language, configure=False)
    kernel.send_frame(CONFIGURE, payload)
    assert kernel.wait_exit() == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_second_or_late_configuration_adds_variables(start, language, phrase, late):
    """Those it had stay, and one that comes again has its new value."""
    kernel = start(language, configure=False)
    kernel.configure({"A": "1", "B": "old"})
    if late:
        kernel.run(phrase("number", 1))
    kernel.configure({"B": "2"})
    assert kernel.run(phrase("read_variable", "A")).main == phrase("shown_text", "1")
    assert kernel.run(phrase("read_variable", "B")).main == phrase("shown_text", "2")


def test_a_late_configuration_leaves_the_search_path_to_the_tenant(start):
    kernel = start("python", configure=False)
    kernel.configure({"A": "1"})
    kernel.run("import sys; sys.path.append('/mine')")
    kernel.configure({"A": "2"})
    assert kernel.run("'/mine' in sys.path").main == "True"


def test_a_frame_in_many_pieces_is_one_frame(kernel, phrase):
    code = struct.pack("<I", 1) + phrase("say", "whole").encode()
    kernel.send(phrase("number", 1))
    kernel.finish()
    kernel.last = type(kernel.last)()
    for byte in struct.pack("<II", EXECUTE, len(code)) + code:
        kernel.control.sendall(bytes([byte]))
    assert kernel.finish().stdout == b"whole\n"


def test_four_mebibytes_of_code_run(kernel, phrase):
    code = (phrase("comment") + "x" * 1000 + "\n") * 3900 + phrase("number", 42)
    assert kernel.run(code).main == "42"


def test_non_ascii_text_is_utf8_everywhere(kernel, phrase):
    outcome = kernel.run(phrase("unicode"))
    assert outcome.stdout.decode() == "日本 ü\n"
    assert outcome.main == phrase("shown_text", "€")


def test_invalid_utf8_in_the_code_is_an_answer(kernel, phrase):
    """Any bytes give a valid answer."""
    quote = phrase("invalid_text").encode()
    kernel.run(quote + b"\xff\xfe" + quote)
    assert kernel.run(phrase("number", 1)).main == "1"


def test_an_empty_cell_is_fine(kernel):
    for code in ("", "\n\n", "   "):
        outcome = kernel.run(code)
        assert (outcome.error, outcome.results, outcome.stdout, outcome.stderr) == (None, [], b"", b"")


def test_output_written_before_a_kill_is_in_the_pipe(kernel, phrase):
    kernel.send("\n".join([phrase("say", "one"), phrase("say", "two"), phrase("sleep_a_minute")]))
    kernel.wait_for_output(b"one\ntwo\n")
    kernel.process.kill()
    assert kernel.wait_exit() == -9


def test_modules_written_between_runs_are_found(kernel, phrase):
    """A file that appears in the working directory can be imported at once."""
    made = kernel.cwd / phrase("made_file")
    assert kernel.run(phrase("import_made", made)).error is not None
    made.write_text(phrase("made_text"))
    assert kernel.run(phrase("import_made", made)).main == "11"
