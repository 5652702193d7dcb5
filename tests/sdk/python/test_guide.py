"""Every program of the user's guide, as it is written there (../guide), with what it prints."""
import contextlib
import io
import pathlib
import re

import pytest

GUIDE = pathlib.Path(__file__).parents[1] / "guide"

# Node prints an array of more than six numbers over several lines; the guide has it on one.
FOLDED = re.compile(r"\[\n((?:\s+\d+,?)+(?:\n\s+\d+,?)*)\n?\s*\]")

PRINTED = {
    "quick_start": "Hello from CodeSpace!\n\n",
    "python_basic": "Output: Python version: 3.11.2 (main, BUILT) [GCC 12.2.0]\nCurrent directory: /workspace\nHello from AgentBay!\n\n",
    "python_calculations": "Output: Factorial of 10: 3628800\n10th Fibonacci number: 55\nSquares: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]\n\n",
    "node_basic": "Output: Node.js version: v18.20.4\nCurrent directory: /workspace\nFile created successfully\n\n",
    "node_data": """Output: Numbers: [ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ]
Sum: 55
Average: 5.5
Squares: [ 1, 4, 9, 16, 25, 36, 49, 64, 81, 100 ]

Data: {
  "name": "AgentBay",
  "version": "1.0",
  "features": [
    "Python",
    "JavaScript",
    "File I/O"
  ]
}

""",
    "script": """Script output: {
  "message": "Hello from uploaded script",
  "args": [
    "arg1",
    "arg2"
  ]
}

Output file content: {
  "message": "Hello from uploaded script",
  "args": [
    "arg1",
    "arg2"
  ]
}
""",
    "project": "Project output: Hello, AgentBay!\n\n",
    "timeouts": "",
    "clean_up": "",
    "try_finally": "Hello!\n\n",
}
WHOLE = ("quick_start", "try_finally")  # they make their own session


def tidied(text):
    text = FOLDED.sub(lambda m: "[ " + " ".join(m[1].split()) + " ]", text)
    return re.sub(r"\(main, [^)]*\)", "(main, BUILT)", text)


def test_every_program_is_here():
    assert {p.stem for p in GUIDE.glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_program(name, agent_bay, make_session):
    program = (GUIDE / f"{name}.py").read_text()
    names = {}
    if name not in WHOLE:
        names = {"agent_bay": agent_bay, "session": make_session(), "code": "print('from before')"}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, name, "exec"), names)  # noqa: S102 - that is the test
    assert tidied(out.getvalue()) == PRINTED[name]
    if name == "clean_up":
        assert not agent_bay.get(names["session"].session_id).success
    if name == "timeouts":
        assert names["result"].success and names["result"].result == "from before\n"
