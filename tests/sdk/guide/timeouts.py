# The default timeout is 60 seconds
result = session.code.run_code(code, "python")

# Specify a custom timeout of up to 60 seconds
result = session.code.run_code(code, "python", timeout_s=60)
