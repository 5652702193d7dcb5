code = """
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

result = session.code.run_code(code, "python")
if result.success:
    print("Output:", result.result)
    # Output: Factorial of 10: 3628800
    #         10th Fibonacci number: 55
    #         Squares: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
