"""A notebook of thirty cells in our kernel and, beside it, in Jupyter's own: the same results by MIME
type and text, the same output, the same errors. Collected only with --rootfs, whose libraries both use."""
import base64
import hashlib
import json
import pathlib
import re
import subprocess

import pytest
from conftest import inside

HERE = pathlib.Path(__file__).parent
BOUND_S = 600

SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(60)\n"
CELLS = [
    "x = 6\nx * 7",
    "print('printed'); 'value'",
    "'silenced';",
    "import pandas as pd\nimport numpy as np\nframe = pd.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', 'z'], 'c': [0.5, np.nan, 1e9]})\nframe",
    "frame.describe()",
    "frame['a'] * 2",
    "frame.groupby('b')['a'].sum().to_dict()",
    "np.arange(12).reshape(3, 4)",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.title('squares');",
    "fig, ax = plt.subplots()\nax.bar(['a', 'b'], [3, 5])\nplt.show()",
    "class Account:\n    def __init__(self, owner, balance=0):\n        self.owner, self.balance = owner, balance\n"
    "    def __repr__(self):\n        return f'Account({self.owner!r}, {self.balance})'\nAccount('Ann', 5)",
    "class Shown:\n    def _repr_html_(self):\n        return '<b>shown</b>'\n    def __repr__(self):\n        return 'Shown()'\nShown()",
    "class Bundle:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n        return {'text/plain': 'bundle', 'application/json': {'k': [1, 2]}}\nBundle()",
    "from IPython.display import HTML, Markdown, Latex, JSON, SVG, Javascript, display\ndisplay(HTML('<i>html</i>'), Markdown('# m'), Latex('$x$'))",
    "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>'))\ndisplay(Javascript('1'))\ndisplay({'text/plain': 'raw', 'text/html': '<u>raw</u>'}, raw=True)",
    "import asyncio\nasync def later(n):\n    await asyncio.sleep(0.01)\n    return n * 2\nawait later(21)",
    "await asyncio.gather(*[later(n) for n in range(3)])",
    "def deep(n):\n    if n == 0:\n        raise ValueError('deep down')\n    deep(n - 1)\ndeep(2)",
    "undefined_name",
    "1 +",
    "{}['missing']",
    "print('to stderr', file=__import__('sys').stderr)",
    {"code": SLOW, "interrupt_after": "begun"},
    "x  # the context is there after an interrupt",
    "%%capture kept\nprint('captured')",
    "kept.stdout",
    "!echo from the shell $((1 + 1))",
    "%who_ls int",
    "import sys\nsys.exit(3)",
    "_, __, Out[1], In[1]",
    "def annotated(a: int, *, b: str = 'z') -> dict:\n    'Says what it does.'\n    return {a: b}\nannotated(1), annotated.__doc__",
    "import warnings\nwarnings.warn('careful')",
    "{'nested': [{'deep': list(range(30))}], 'set': {1}, 'text': 'x' * 50}",
]


@pytest.fixture(scope="session")
def jupyter():
    """A directory with ipykernel, made anew when its versions change."""
    requirements = HERE / "requirements.txt"
    made = HERE.parents[1] / "build/jupyter" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    if not (made / "complete").exists():
        subprocess.run(["/usr/bin/python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", made, "--upgrade",
                        "-r", requirements], check=True, timeout=BOUND_S)
        (made / "complete").touch()
    return made


@pytest.fixture
def reference(jupyter, tmp_path, pytestconfig):
    """What Jupyter's kernel makes of the cells."""
    rootfs = pytestconfig.getoption("rootfs")
    (tmp_path / "reference.py").write_text((HERE / "reference.py").read_text())
    bind = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", 'mount --bind "$1" "$2/mnt"; shift 2; exec "$@"', "sh", jupyter, rootfs]
    cells = [cell if isinstance(cell, dict) else {"code": cell} for cell in CELLS]
    done = subprocess.run([*bind, *inside(rootfs, tmp_path), "/usr/bin/python3", str(tmp_path / "reference.py"), "/mnt"],
                          input=json.dumps(cells), capture_output=True, text=True, timeout=BOUND_S,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def ours(kernel, cell):
    if isinstance(cell, dict):
        kernel.send(cell["code"])
        kernel.wait_for_output(cell["interrupt_after"].encode())
        kernel.interrupt()
        outcome = kernel.finish()
    else:
        outcome = kernel.run(cell)
    return {"stdout": outcome.stdout.decode(), "stderr": outcome.stderr.decode(),
            "results": [[main, bundle] for main, bundle in outcome.results],
            "error": list(outcome.error[:2]) if outcome.error else None}


def comparable(got):
    """The outcome without what is each kernel's own: picture data, addresses, names of cells."""
    results = []
    for main, bundle in got["results"]:
        shown = {}
        for mime, data in bundle.items():
            if mime.startswith("image/"):
                assert mime != "image/png" or base64.b64decode(data).startswith(b"\x89PNG")
                data = "a picture"
            elif mime.endswith("json"):
                data = json.loads(data) if isinstance(data, str) else data
            shown[mime] = re.sub(r"0x[0-9a-f]+", "0xADDRESS", data) if isinstance(data, str) else data
        results.append([main, shown])
    error = got["error"] and [got["error"][0], re.sub(r"\((?:<[^>]*>|[^()]*\.py), line (\d+)\)", r"(CELL, line \1)", got["error"][1])]
    # Jupyter gives `!` a terminal, which ends lines with \r\n.
    return {"stdout": got["stdout"].replace("\r\n", "\n"), "results": results, "error": error}


def test_the_walk(python, reference):
    assert len(CELLS) >= 30 and len(reference) == len(CELLS)
    differences = []
    for number, (cell, theirs) in enumerate(zip(CELLS, reference), 1):
        mine = comparable(ours(python, cell))
        if mine != comparable(theirs):
            differences.append(f"cell {number}: {cell!r}\n  ours   {mine}\n  theirs {comparable(theirs)}")
    assert not differences, "\n".join(differences)
