agent_bay.delete(session)
