// Properties of the handshake under random input: cutting the input differently changes nothing,
// and no input makes it crash, stall or grow.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>

#include "tests/engine/nbd/protocol/handshake_testing.h"

namespace gabion::nbd {
namespace {

using namespace testing;  // NOLINT: the client's half of the wire
using Rng = std::mt19937_64;

size_t Below(Rng& rng, size_t bound) { return rng() % bound; }

std::string RandomText(Rng& rng) {
  static const std::string kTexts[] = {"disk",
                                       "",
                                       "strict",
                                       "draining",
                                       "nobody",
                                       "base:",
                                       "x:y",
                                       std::string("\0", 1),
                                       "\xff\xfe",
                                       "base:allocation",
                                       "qemu:",
                                       std::string(4096, 'l'),
                                       std::string(4097, 'm')};
  // The long ones are rare, so that most handshakes are short.
  const size_t choices = Below(rng, 16) == 0 ? std::size(kTexts) : std::size(kTexts) - 2;
  return kTexts[Below(rng, choices)];
}

std::string RandomPayload(Rng& rng, uint32_t option) {
  switch (option) {
    case kOptExportName:
      return RandomText(rng);
    case kOptInfo:
    case kOptGo: {
      std::vector<uint16_t> requests(Below(rng, 5));
      for (uint16_t& request : requests) request = static_cast<uint16_t>(Below(rng, 6));
      return InfoPayload(RandomText(rng), requests);
    }
    case kOptListMeta:
    case kOptSetMeta: {
      std::vector<std::string> queries(Below(rng, 4));
      for (std::string& query : queries) query = RandomText(rng);
      return MetaPayload(RandomText(rng), queries);
    }
    default:
      return Below(rng, 4) == 0 ? RandomText(rng) : "";
  }
}

// A plausible conversation: most options are well formed, the last one often ends it.
std::string RandomConversation(Rng& rng) {
  std::string bytes = ClientFlags(static_cast<uint32_t>(Below(rng, 4)));
  if (Below(rng, 2) == 0) bytes += OptionBytes(kOptStructured);
  for (size_t i = Below(rng, 6); i > 0; --i) {
    const auto option = static_cast<uint32_t>(2 + Below(rng, 11));
    if (option != kOptAbort) bytes += OptionBytes(option, RandomPayload(rng, option));
  }
  const uint32_t last[] = {kOptExportName, kOptAbort, kOptGo, kOptGo};
  const uint32_t option = last[Below(rng, 4)];
  return bytes + OptionBytes(option, RandomPayload(rng, option)) + "first request";
}

void Mutate(Rng& rng, std::string* bytes) {
  for (size_t i = 1 + Below(rng, 3); i > 0 && !bytes->empty(); --i) {
    const size_t at = Below(rng, bytes->size());
    switch (Below(rng, 6)) {
      case 0:
        (*bytes)[at] ^= static_cast<char>(1 << Below(rng, 8));
        break;
      case 1:
        (*bytes)[at] = static_cast<char>(rng());
        break;
      case 2:
        bytes->resize(at);
        break;
      case 3:
        bytes->erase(at, 1 + Below(rng, 8));
        break;
      case 4:
        bytes->insert(at, bytes->substr(Below(rng, bytes->size()), Below(rng, 32)));
        break;
      case 5:  // an extreme length somewhere
        bytes->replace(at, 4, Be32(Below(rng, 2) ? 0xffffffff : kMaxSkippedPayload));
        break;
    }
  }
}

struct Outcome {
  Step step;
  size_t used;
  std::string output;
  std::string reason;
  std::vector<std::string> asked;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Runs `bytes` in pieces of at most `longest` bytes.
Outcome RunInPieces(const std::string& bytes, Rng& rng, size_t longest) {
  auto runner = std::make_unique<HandshakeRunner>();
  std::string_view rest = bytes;
  while (!rest.empty() && runner->step() == Step::kContinue) {
    const size_t piece = std::min(rest.size(), 1 + Below(rng, longest));
    runner->Feed(rest.substr(0, piece));
    rest.remove_prefix(piece);
  }
  return Outcome{runner->step(), runner->used(), runner->TakeOutput(), runner->handshake().reason(),
                 runner->asked()};
}

TEST(HandshakePropertyTest, CuttingTheInputAnywhereChangesNothing) {
  const uint64_t seed = TestSeed(20261122);
  Rng rng(seed);
  int transmissions = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = RandomConversation(rng);
    if (round % 3 == 0) Mutate(rng, &bytes);
    const Outcome whole = RunInPieces(bytes, rng, bytes.size() * 1000);
    transmissions += whole.step == Step::kTransmission;
    for (const size_t longest : {size_t{1}, size_t{7}, size_t{40}}) {
      const Outcome pieces = RunInPieces(bytes, rng, longest);
      ASSERT_EQ(pieces, whole) << "seed " << seed << " round " << round << " pieces of up to "
                               << longest << ": " << ToHex(bytes);
    }
  }
  EXPECT_GT(transmissions, 300);  // or the conversations test little
}

// No answer to one option takes more with the exports above, and refusals are a sentence: what is
// sent stays in proportion to what was received.
constexpr size_t kLongestAnswer = 4096;
constexpr size_t kGrowth = 16;

TEST(HandshakePropertyTest, MutatedHandshakesNeitherCrashNorGrow) {
  const uint64_t seed = TestSeed(4711);
  Rng rng(seed);
  int ended[6] = {};
  for (int round = 0; round < 200000; ++round) {
    std::string bytes = RandomConversation(rng);
    Mutate(rng, &bytes);
    HandshakeRunner runner;
    const Step step = runner.Feed(bytes);
    ++ended[static_cast<int>(step)];
    ASSERT_LE(runner.used(), bytes.size());
    ASSERT_LE(runner.peak(), kLongestAnswer + kGrowth * bytes.size())
        << "seed " << seed << " round " << round;
    if (step == Step::kContinue) {
      ASSERT_EQ(runner.used(), bytes.size());
    }
    if (step == Step::kClose || step == Step::kDrop) {
      ASSERT_FALSE(runner.handshake().reason().empty());
    }
    for (const Reply& reply : ParseReplies(runner.TakeOutput())) {
      const bool bare = reply.type == 0;  // EXPORT_NAME's answer is no option reply
      ASSERT_TRUE(!bare || step == Step::kTransmission) << "seed " << seed << " round " << round;
      ASSERT_LE(reply.payload.size(), kLongestAnswer);
    }
  }
  for (Step step : {Step::kContinue, Step::kTransmission, Step::kClose, Step::kDrop}) {
    EXPECT_GT(ended[static_cast<int>(step)], 1000) << static_cast<int>(step);
  }
}

TEST(HandshakePropertyTest, NoiseIsDropped) {
  const uint64_t seed = TestSeed(99);
  Rng rng(seed);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = Below(rng, 2) ? ClientFlags() : "";
    for (size_t i = 16 + 4 + Below(rng, 200); i > 0; --i) bytes.push_back(static_cast<char>(rng()));
    HandshakeRunner runner;
    ASSERT_EQ(runner.Feed(bytes), Step::kDrop) << "seed " << seed << " round " << round;
    ASSERT_EQ(runner.TakeOutput(), "");
  }
}

}  // namespace
}  // namespace gabion::nbd
