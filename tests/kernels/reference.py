"""Runs cells in Jupyter's own Python kernel and prints what came of each as one line of JSON. Run by
test_walk.py with the interpreter and libraries of an image; ipykernel lies in the directory argv[1].

stdin: a JSON list of cells; each is {"code": ..., "interrupt_after": what it prints when it wants to be interrupted}."""
import json
import os
import sys

# Behind the image's own libraries, so that IPython and all it shows are the ones our kernel has.
sys.path.append(sys.argv[1])
PATIENCE_S = 60


def outcome_of(client, manager, cell):
    got = {"stdout": "", "stderr": "", "results": [], "error": None}
    identity = client.execute(cell["code"], stop_on_error=False, allow_stdin=False)
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE_S)
        if message["parent_header"].get("msg_id") != identity:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            got[content["name"]] += content["text"]
            if cell.get("interrupt_after") and cell["interrupt_after"] in got["stdout"]:
                manager.interrupt_kernel()
        elif kind in ("display_data", "execute_result"):
            got["results"].append([kind == "execute_result", content["data"]])
        elif kind == "error":
            got["error"] = [content["ename"], content["evalue"]]
        elif kind == "status" and content["execution_state"] == "idle":
            client.get_shell_msg(timeout=PATIENCE_S)
            return got


def main():
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=os.path.abspath("connection.json"))
    manager._kernel_spec = __import__("jupyter_client.kernelspec", fromlist=["KernelSpec"]).KernelSpec(
        argv=[sys.executable, "-c", "import sys; sys.path.append(%r); from ipykernel import kernelapp; kernelapp.launch_new_instance()" % sys.argv[1],
              "-f", "{connection_file}"], language="python")
    manager.start_kernel(env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}, stdout=sys.stderr.fileno())
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        for cell in json.load(sys.stdin):
            print(json.dumps(outcome_of(client, manager, cell)), flush=True)
    finally:
        manager.shutdown_kernel(now=True)


main()
