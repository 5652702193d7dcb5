import os
from agentbay import AgentBay, CreateSessionParams

agent_bay = AgentBay(api_key=os.environ.get("AGENTBAY_API_KEY"))

session_params = CreateSessionParams(image_id="code_latest")
result = agent_bay.create(session_params)
session = result.session

output = session.code.run_code('print("Hello from CodeSpace!")', "python")
print(output.result)

agent_bay.delete(session)
