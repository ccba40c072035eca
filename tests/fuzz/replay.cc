// Runs a fuzz target without a fuzzer: over every file of a corpus, then over GABION_FUZZ_RUNS
// (20,000) random mutations of them. What a target finds ends the process. Usage: TARGET CORPUS
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/support/random_source.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace gabion::test {
namespace {

constexpr unsigned long kDefaultRuns = 20000;
constexpr size_t kLargestInput = 8192;

std::vector<std::string> ReadCorpus(const char* folder) {
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// Up to eight changes of bytes and pieces; pieces also of other inputs.
std::string Mutated(RandomSource& random, const std::vector<std::string>& corpus) {
  std::string input = corpus[random.Below(corpus.size())];
  for (uint64_t i = random.PowerOfTwo(1, 8); i > 0; --i) {
    const size_t at = random.Below(input.size() + 1);
    const std::string& other = corpus[random.Below(corpus.size())];
    switch (random.Below(6)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << random.Below(8)));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(random.Below(256));
        break;
      case 2:
        input.erase(at, random.Between(1, 8));
        break;
      case 3:
        input.insert(at, random.PowerOfTwo(1, 32), static_cast<char>(random.Below(256)));
        break;
      case 4:
        input.insert(at, other, random.Below(other.size() + 1), random.Between(1, 64));
        break;
      default:
        input.resize(at);
        input += other.substr(random.Below(other.size() + 1));
    }
  }
  if (input.size() > kLargestInput) input.resize(kLargestInput);
  return input;
}

void Run(const std::string& input) {
  // Copied to where a read beyond its end is one beyond an allocation.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

int Replay(const char* folder) {
  const std::vector<std::string> corpus = ReadCorpus(folder);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s holds no input\n", folder);
    return 1;
  }
  for (const std::string& input : corpus) Run(input);
  const char* given = std::getenv("GABION_FUZZ_RUNS");
  const unsigned long runs = given != nullptr ? std::strtoul(given, nullptr, 10) : kDefaultRuns;
  RandomSource random(ProcessSeed());
  for (unsigned long i = 0; i < runs; ++i) Run(Mutated(random, corpus));
  std::printf("%zu inputs and %lu mutations of them\n", corpus.size(), runs);
  return 0;
}

}  // namespace
}  // namespace gabion::test

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s CORPUS\n", arguments[0]);
    return 2;
  }
  return gabion::test::Replay(arguments[1]);
}
