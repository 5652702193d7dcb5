js_code = """
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

result = session.code.run_code(js_code, "javascript")
if result.success:
    print("Output:", result.result)
    # Output: Numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    #         Sum: 55
    #         Average: 5.5
    #         Squares: [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
    #
    #         Data: {
    #           "name": "AgentBay",
    #           "version": "1.0",
    #           "features": [
    #             "Python",
    #             "JavaScript",
    #             "File I/O"
    #           ]
    #         }
