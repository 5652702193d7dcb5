// Runs a fuzz target without libFuzzer: over its corpus, and over simple mutations of it, the
// same ones every time. Usage: replay CORPUS MUTATIONS. The corpus is a file with one input a
// line, in base64.
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace {

std::vector<std::uint8_t> decode(const std::string& line) {
  static const std::string kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<std::uint8_t> out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : line) {
    const std::size_t value = kDigits.find(c);
    if (value == std::string::npos) break;
    bits = bits << 6U | static_cast<std::uint32_t>(value);
    if ((count += 6) >= 8) out.push_back(static_cast<std::uint8_t>(bits >> (count -= 8)));
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::ifstream in(argv[1]);
  std::vector<std::vector<std::uint8_t>> inputs;
  for (std::string line; std::getline(in, line);) inputs.push_back(decode(line));
  if (inputs.empty()) {
    std::cerr << "no inputs in " << argv[1] << '\n';
    return 1;
  }
  for (const auto& input : inputs) LLVMFuzzerTestOneInput(input.data(), input.size());
  std::mt19937 random(1);
  const int mutations = std::stoi(argv[2]);
  for (int i = 0; i < mutations; ++i) {
    auto input = inputs[random() % inputs.size()];
    const auto& other = inputs[random() % inputs.size()];
    for (auto n = 1 + random() % 3; n > 0 && !input.empty(); --n) {
      const std::size_t at = random() % input.size();
      switch (random() % 4) {
        case 0: input[at] = static_cast<std::uint8_t>(random()); break;
        case 1: input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(random())); break;
        case 2: input.erase(input.begin() + static_cast<std::ptrdiff_t>(at)); break;
        default: input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), other.begin(), other.end()); break;
      }
    }
    if (input.size() > 65536) input.resize(65536);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::cout << inputs.size() << " inputs and " << mutations << " mutations\n";
  return 0;
}
