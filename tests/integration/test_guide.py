"""Every example of the user's guide, over REST, with the output the guide prints. Two places
where the guide is tidied are compared by their meaning: the build date inside Python's
version, and Node's folding of arrays of more than six numbers over several lines."""
import json

import pytest

BASIC_PYTHON = """
import os
import sys
print(f"Python version: {sys.version}")
print(f"Current directory: {os.getcwd()}")
print("Hello from AgentBay!")
"""

CALCULATIONS = """
import math

# Calculate factorial
def factorial(n):
    return math.factorial(n)

# Fibonacci sequence
def fibonacci(n):
    if n <= 1:
        return n
    return fibonacci(n-1) + fibonacci(n-2)

print(f"Factorial of 10: {factorial(10)}")
print(f"10th Fibonacci number: {fibonacci(10)}")

# List comprehension
squares = [x**2 for x in range(1, 11)]
print(f"Squares: {squares}")
"""

BASIC_NODE = """
const fs = require('fs');
const path = require('path');

console.log('Node.js version:', process.version);
console.log('Current directory:', process.cwd());

// Create a simple file
fs.writeFileSync('/tmp/hello.txt', 'Hello from Node.js!');
console.log('File created successfully');
"""

DATA_NODE = """
// Array operations
const numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

const sum = numbers.reduce((a, b) => a + b, 0);
const avg = sum / numbers.length;
const squares = numbers.map(x => x * x);

console.log('Numbers:', numbers);
console.log('Sum:', sum);
console.log('Average:', avg);
console.log('Squares:', squares);

// Object operations
const data = {
    name: 'AgentBay',
    version: '1.0',
    features: ['Python', 'JavaScript', 'File I/O']
};

console.log('\\nData:', JSON.stringify(data, null, 2));
"""

# As Node 18 and 20 print it: columns of numbers, filled to the right.
DATA_NODE_OUTPUT = """Numbers: [
  1, 2, 3, 4,  5,
  6, 7, 8, 9, 10
]
Sum: 55
Average: 5.5
Squares: [
   1,  4,  9, 16,  25,
  36, 49, 64, 81, 100
]

Data: {
  "name": "AgentBay",
  "version": "1.0",
  "features": [
    "Python",
    "JavaScript",
    "File I/O"
  ]
}
"""

SCRIPT = """
import json
import sys

data = {
    'message': 'Hello from uploaded script',
    'args': sys.argv[1:] if len(sys.argv) > 1 else []
}

with open('/tmp/output.json', 'w') as f:
    json.dump(data, f, indent=2)

print(json.dumps(data, indent=2))
"""

SCRIPT_OUTPUT = """{
  "message": "Hello from uploaded script",
  "args": [
    "arg1",
    "arg2"
  ]
}"""

MAIN_PY = """
from utils import greet

if __name__ == "__main__":
    print(greet("AgentBay"))
"""

UTILS_PY = """
def greet(name):
    return f"Hello, {name}!"
"""


def test_quick_start(session):
    """The first example prints its greeting."""
    assert session.run('print("Hello from CodeSpace!")')["stdout"] == "Hello from CodeSpace!\n"


def test_basic_python(session, image):
    """Python says its version, its directory and hello."""
    lines = session.run(BASIC_PYTHON)["stdout"].splitlines()
    assert lines[1:] == ["Current directory: /workspace", "Hello from AgentBay!"]
    version = "Python version: 3.11.2 (main, " if image == "code_latest" else "Python version: 3."
    assert lines[0].startswith(version) and lines[0].endswith("]"), lines[0]
    if image == "code_latest":
        assert lines[0].endswith(") [GCC 12.2.0]"), lines[0]


def test_calculations(session):
    """Functions, recursion and comprehensions give the values of the guide."""
    assert session.run(CALCULATIONS)["stdout"] == ("Factorial of 10: 3628800\n10th Fibonacci number: 55\n"
                                                  "Squares: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]\n")


def test_basic_node(session, image):
    """Node says its version and its directory and writes a file."""
    lines = session.run(BASIC_NODE, "javascript")["stdout"].splitlines()
    assert lines[1:] == ["Current directory: /workspace", "File created successfully"]
    if image == "code_latest":
        assert lines[0] == "Node.js version: v18.20.4"
    assert session.read("/tmp/hello.txt").body == b"Hello from Node.js!"


def test_node_data_processing(session):
    """Array and object operations print what Node prints."""
    assert session.run(DATA_NODE, "javascript")["stdout"] == DATA_NODE_OUTPUT


def test_script_with_arguments(session):
    """A script written through the file API runs with arguments, and its output file can be read."""
    session.put("/tmp/script.py", SCRIPT.encode()).ok(201)
    record = session.command("python3 /tmp/script.py arg1 arg2")
    assert record["exit_code"] == 0 and record["stdout"] == SCRIPT_OUTPUT + "\n"
    answer = session.read("/tmp/output.json")
    assert answer.status == 200 and answer.body.decode() == SCRIPT_OUTPUT
    assert json.loads(answer.body)["args"] == ["arg1", "arg2"]


def test_multi_file_project(session):
    """A project of two files in a new directory runs."""
    assert session.api.post(session.path + "/files:mkdir", {"path": "/workspace/myproject"}).status == 204
    session.put("/workspace/myproject/main.py", MAIN_PY.encode()).ok(201)
    session.put("/workspace/myproject/utils.py", UTILS_PY.encode()).ok(201)
    assert session.command("cd /workspace/myproject && python3 main.py")["stdout"] == "Hello, AgentBay!\n"


def test_timeout_may_be_given(session):
    """60 seconds is the default and the longest; 61 is refused with a sentence that names the limit."""
    assert session.run("print(1)", timeout_s=60)["outcome"] == "ok"
    problem = session.try_run("print(1)", timeout_s=61).problem(400, "invalid_request")
    assert "60" in problem["detail"]


@pytest.mark.parametrize("language, code", [
    ("python", "import os, sys, json, math, datetime, re, collections, itertools, sqlite3, ssl, hashlib, asyncio\nprint('all')"),
    ("javascript", "for (const m of ['fs', 'path', 'os', 'crypto', 'http', 'zlib', 'url', 'util']) require(m);\nconsole.log('all')"),
])
def test_standard_modules(session, language, code):
    """The built-in modules the guide names, and their neighbours, can be imported."""
    assert session.run(code, language)["stdout"] == "all\n"


def test_pre_installed_libraries(session, image):
    """The built image has numpy, pandas and matplotlib, and a figure comes back as a picture."""
    if image != "code_latest":
        return  # the embedded image promises the host's own interpreters and no library
    record = session.run("import numpy as np, pandas as pd\nprint(np.arange(3).sum())\npd.DataFrame({'a': [1, 2]})")
    assert record["stdout"] == "3\n"
    main = record["results"][-1]
    assert main["is_main_result"] and "text/plain" in main["data"] and "<table" in main["data"]["text/html"]
    record = session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()", timeout_s=60)
    assert any("image/png" in result["data"] for result in record["results"]), record


def test_clean_up_in_finally(api, image):
    """Create, use in try, delete in finally: afterwards the session is gone."""
    from client import Session

    session = Session.create(api, image=image)
    try:
        assert session.run('print("Hello!")')["stdout"] == "Hello!\n"
    finally:
        assert session.delete().status == 204
    session.get().problem(410, "session_ended")
