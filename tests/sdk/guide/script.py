script_content = """
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

# Write the script
write_result = session.file_system.write_file("/tmp/script.py", script_content)

# Run the script with arguments
exec_result = session.command.execute_command("python3 /tmp/script.py arg1 arg2")
if exec_result.success:
    print("Script output:", exec_result.output)
    # Script output: {
    #   "message": "Hello from uploaded script",
    #   "args": [
    #     "arg1",
    #     "arg2"
    #   ]
    # }

# Read the generated output file
output_result = session.file_system.read_file("/tmp/output.json")
if output_result.success:
    print("Output file content:", output_result.content)
