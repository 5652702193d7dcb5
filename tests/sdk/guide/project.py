# Create the project directory
session.file_system.create_directory("/workspace/myproject")

main_py = """
from utils import greet

if __name__ == "__main__":
    print(greet("AgentBay"))
"""

utils_py = """
def greet(name):
    return f"Hello, {name}!"
"""

# Write source files
session.file_system.write_file("/workspace/myproject/main.py", main_py)
session.file_system.write_file("/workspace/myproject/utils.py", utils_py)

# Run the project
result = session.command.execute_command("cd /workspace/myproject && python3 main.py")
if result.success:
    print("Project output:", result.output)
    # Project output: Hello, AgentBay!
