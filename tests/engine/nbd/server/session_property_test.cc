// Random disks, granules, tails, request mixes and cuts of the stream, against a byte array.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/aligned_node.h"
#include "engine/block/block_status.h"
#include "engine/block/tail_node.h"
#include "tests/engine/nbd/server/session_harness.h"

namespace gabion::nbd {
namespace {

using block::ExtentKind;
using block::TailMode;
using test::NbdReply;
using test::NbdRequest;
using test::RandomSource;
using testing::Connected;
using testing::kCmdRead;
using testing::kCmdStatus;
using testing::kCmdTrim;
using testing::kCmdWrite;
using testing::kCmdZeroes;
using testing::kDf;
using testing::kFua;
using testing::kNoHole;
using testing::kReqOne;
using testing::Loop;
using testing::Terms;

struct Sent {
  NbdRequest request;
  std::string payload;
  uint64_t cookie = 0;
};

// One random disk, seen through the nodes that its export needs, and one client.
class World {
 public:
  explicit World(uint64_t seed)
      : random_(seed), size_(random_.Between(1, 40000)), granule_(random_.PowerOfTwo(1, 8192)) {
    test::MemoryNodeOptions options;
    options.size = size_;
    options.alignment = random_.OneIn(2) ? 1 : random_.PowerOfTwo(2, 4096);
    options.memory_alignment = random_.OneIn(2) ? 1 : 512;
    memory_ = std::make_unique<test::MemoryNode>(options);
    FillAtRandom();
    memory_->SetDeferred(loop_.reactor.ready(), random_);
    loop_.reactor.ready().SetChooser(&RandomSource::Choose, &random_);
    aligned_ = std::make_unique<block::AlignedNode>(*memory_, loop_.reactor.ready());
    root_ = aligned_.get();
    if (size_ % granule_ != 0) {
      const TailMode modes[] = {TailMode::kPadZero, TailMode::kTruncate};
      TailMode mode = random_.Pick(modes);
      if (size_ < granule_) mode = TailMode::kPadZero;
      tail_ = std::make_unique<block::TailNode>(*aligned_, mode, ByteCount{granule_},
                                                loop_.reactor.ready());
      root_ = tail_.get();
    }
    // What a read-modify-write below may turn into data.
    unit_ = std::max<uint64_t>({granule_, options.alignment, options.memory_alignment});
    Connect();
  }

  // Sends a batch in which nothing touches what a write changes, and compares every answer.
  void Batch() {
    const std::vector<std::byte> before = ModelContent();
    std::vector<Sent> batch;
    std::vector<ByteRange> writes, reads;
    std::string bytes;
    for (uint64_t count = random_.Between(1, 30); count > 0; --count) {
      Sent sent = RandomRequest();
      const ByteRange range = AlignOutward(Range(sent.request.offset, sent.request.length),
                                           ByteCount{unit_}, ByteCount{RoundUp(size_, unit_)});
      const bool changes = sent.request.command != kCmdRead && sent.request.command != kCmdStatus;
      const auto meets = [&](ByteRange other) { return Overlaps(other, range); };
      if (std::any_of(writes.begin(), writes.end(), meets)) continue;
      if (changes && std::any_of(reads.begin(), reads.end(), meets)) continue;
      (changes ? writes : reads).push_back(range);
      bytes += client_->client.Request(sent.request, sent.payload);
      sent.cookie = client_->client.last_cookie();
      batch.push_back(std::move(sent));
    }
    client_->connection.Send(bytes);
    client_->Settle();
    ASSERT_EQ(client_->client.outstanding(), 0u);
    for (const Sent& sent : batch) Compare(sent, before);
    client_->client.replies().clear();
  }

 private:
  void Connect() {
    Terms terms;
    terms.size = root_->limits().size.value;
    terms.policy.granule = static_cast<uint32_t>(granule_);
    terms.structured = terms.meta = !random_.OneIn(4);
    terms.maximum_payload = static_cast<uint32_t>(std::max<uint64_t>(8192, granule_));
    terms.limits.max_requests_in_flight = static_cast<uint32_t>(random_.Between(1, 40));
    terms.limits.max_bytes_in_flight = random_.Between(1, 100000);
    if (random_.OneIn(3)) terms.limits.max_descriptors = 3;
    terms_ = terms;
    client_ = std::make_unique<Connected>(loop_, terms, *root_, gate_);
    client_->connection.SetRandom(random_);
  }

  void FillAtRandom() {
    const ExtentKind kinds[] = {ExtentKind::kZeroAllocated, ExtentKind::kZero,
                                ExtentKind::kUnallocated};
    for (int i = 0; i < 20; ++i) {
      const ByteRange range = random_.RangeWithin(size_);
      if (random_.OneIn(2)) {
        const ExtentKind kind = random_.Pick(kinds);
        memory_->SetStatus(range, kind, kind == ExtentKind::kUnallocated ? 0 : 1);
      } else {
        memory_->Fill(range, static_cast<std::byte>(random_.Between(1, 255)));
      }
    }
  }

  // What clients should read: the image, and the padding behind it.
  std::vector<std::byte> ModelContent() const {
    std::vector<std::byte> content = memory_->content();
    content.resize(root_->limits().size.value);
    return content;
  }

  Sent RandomRequest() {
    const uint16_t commands[] = {kCmdRead,  kCmdRead,   kCmdStatus, kCmdStatus,
                                 kCmdWrite, kCmdZeroes, kCmdTrim};
    const ByteRange range = random_.OneIn(2) ? AlignedRange() : random_.RangeWithin(terms_.size);
    Sent sent;
    sent.request = {random_.Pick(commands), 0, range.offset.value,
                    static_cast<uint32_t>(range.length.value)};
    NbdRequest& request = sent.request;
    if (!terms_.meta && request.command == kCmdStatus) request.command = kCmdRead;
    if (request.command == kCmdWrite || (request.command == kCmdRead && !terms_.structured)) {
      request.length = std::min(request.length, terms_.maximum_payload);
    }
    if (random_.OneIn(3)) request.flags = RandomFlag(request);
    if (request.command == kCmdWrite) sent.payload = RandomPayload(request);
    return sent;
  }

  ByteRange AlignedRange() {
    const ByteRange units = random_.RangeWithin(terms_.size / granule_);
    return Range(units.offset.value * granule_, units.length.value * granule_);
  }

  uint16_t RandomFlag(const NbdRequest& request) const {
    if (request.command == kCmdStatus) return kReqOne;
    if (request.command == kCmdZeroes) return kNoHole;
    if (request.command != kCmdRead) return kFua;
    return terms_.structured && request.length <= terms_.maximum_payload ? kDf : kFua;
  }

  // Padding takes zeros only.
  std::string RandomPayload(const NbdRequest& request) {
    std::string payload(request.length, '\0');
    const uint64_t room = size_ > request.offset ? size_ - request.offset : 0;
    const uint64_t used = std::min<uint64_t>(room, request.length);
    if (!random_.OneIn(4)) {
      random_.FillNonZero(std::as_writable_bytes(std::span(payload.data(), used)));
    }
    return payload;
  }

  void Compare(const Sent& sent, const std::vector<std::byte>& before) {
    const NbdRequest& request = sent.request;
    SCOPED_TRACE(::testing::Message()
                 << "command " << request.command << " flags " << request.flags << " offset "
                 << request.offset << " length " << request.length << " granule " << granule_
                 << " image " << size_ << " export " << terms_.size);
    const auto found = client_->client.replies().find(sent.cookie);
    ASSERT_NE(found, client_->client.replies().end());
    const NbdReply& reply = found->second;
    ASSERT_EQ(reply.error, 0u) << reply.message;
    const auto* content = reinterpret_cast<const char*>(before.data());
    if (request.command == kCmdRead) {
      EXPECT_EQ(reply.data, std::string(content + request.offset, request.length));
    } else if (request.command == kCmdStatus) {
      CompareStatus(reply, before);
    } else {
      CompareWritten(sent, before);
    }
  }

  void CompareWritten(const Sent& sent, const std::vector<std::byte>& before) {
    const std::vector<std::byte> now = ModelContent();
    const auto* content = reinterpret_cast<const char*>(now.data());
    std::string wanted = sent.payload;
    wanted.resize(sent.request.length);
    if (sent.request.command == kCmdTrim) {  // any mix of old bytes and zeros will do
      for (uint64_t i = 0; i < wanted.size(); ++i) {
        const uint64_t at = sent.request.offset + i;
        if (now[at] != std::byte{0}) {
          wanted[i] = static_cast<char>(before[at]);
        }
      }
    }
    EXPECT_EQ(std::string(content + sent.request.offset, sent.request.length), wanted);
  }

  // Every unit as the truth table of the status rules has it, computed byte by byte.
  uint64_t UnitStatus(uint64_t begin) const {
    bool hole = true, zero = true;
    for (uint64_t at = begin; at < std::min(begin + granule_, size_); ++at) {
      const ExtentKind kind = memory_->kind_at(at);
      zero &= block::ReadsZero(kind);
      hole &= kind == ExtentKind::kZero || kind == ExtentKind::kUnallocated;
    }
    return (zero ? 2u : 0u) | (zero && hole ? 1u : 0u);
  }

  void CompareStatus(const NbdReply& reply, const std::vector<std::byte>& before) {
    uint64_t at = reply.request.offset;
    ASSERT_TRUE(reply.status.contains(1));
    for (const test::NbdDescriptor& descriptor : reply.status.at(1)) {
      const uint64_t end = at + descriptor.length;
      for (uint64_t unit = RoundDown(at, granule_); unit < end; unit += granule_) {
        ASSERT_EQ(descriptor.status, UnitStatus(unit)) << "unit at " << unit;
      }
      const auto nonzero = [](std::byte byte) { return byte != std::byte{0}; };
      if (descriptor.status & 2) {
        EXPECT_FALSE(std::any_of(before.begin() + static_cast<std::ptrdiff_t>(at),
                                 before.begin() + static_cast<std::ptrdiff_t>(end), nonzero));
      }
      at = end;
    }
    // Nothing but the bound on descriptors ends an answer early.
    const bool bounded = (reply.request.flags & kReqOne) != 0 ||
                         reply.status.at(1).size() == terms_.limits.max_descriptors;
    if (!bounded) {
      EXPECT_GE(at, reply.request.offset + reply.request.length);
    }
  }

  RandomSource random_;
  Loop loop_;
  runtime::Turnstile gate_{loop_.reactor.ready()};
  const uint64_t size_;
  const uint64_t granule_;
  uint64_t unit_ = 1;
  std::unique_ptr<test::MemoryNode> memory_;
  std::unique_ptr<block::AlignedNode> aligned_;
  std::unique_ptr<block::TailNode> tail_;
  block::Node* root_ = nullptr;
  Terms terms_;
  std::unique_ptr<Connected> client_;
};

TEST(SessionPropertyTest, EveryAnswerIsRightAndKeepsWhatTheExportDeclared) {
  RandomSource seeds;
  for (int round = 0; round < 150 && !::testing::Test::HasFailure(); ++round) {
    World world(seeds.Next());
    for (int batch = 0; batch < 6 && !::testing::Test::HasFailure(); ++batch) world.Batch();
  }
}

}  // namespace
}  // namespace gabion::nbd
