// A node over a vector of bytes, for tests of whatever stands above nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/block/node.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support/random_source.h"

namespace gabion::test {

enum class NodeCall {
  kRead,
  kWrite,
  kZero,
  kDiscard,
  kFlush,
  kCache,
  kBlockStatus,
  kResize,
  kClose
};

// One call that reached the node, in the order of arrival.
struct CallRecord {
  NodeCall call;
  ByteRange range;
  bool durable = false;
};

struct MemoryNodeOptions {
  uint64_t size = 0;
  uint64_t alignment = 1;
  uint32_t memory_alignment = 1;
  uint64_t preferred = 0;
  std::string name = "memory";
  uint32_t layers = 1;
  bool writable = true;
  bool resizable = true;
  bool fast_zero = false;
  // What Discard() makes of the content: zeros and kZero, or nothing.
  bool discard_zeroes = true;
};

// Every byte has a content and a (kind, layer). A write makes bytes kData of layer 1, a zero kZero
// or kZeroAllocated of layer 1. Starts out as kUnallocated zeros.
//
// With SetDeferred() every call waits at random, and reads and writes go byte-wise in several steps
// with other calls in between, so that races of the caller show; without it every call is done at
// once. Owned by a test; one thread.
class MemoryNode final : public block::Node {
 public:
  // Decides about a call before it has any effect; OK lets it pass.
  using Fault = std::function<absl::Status(NodeCall, ByteRange)>;

  explicit MemoryNode(const MemoryNodeOptions& options);

  // `ready` and `random` outlive the node's last call.
  void SetDeferred(runtime::ReadyQueue& ready, RandomSource& random) {
    ready_ = &ready;
    random_ = &random;
  }
  void SetFault(Fault fault) { fault_ = std::move(fault); }

  // Sets content and status behind the back of the calls above. REQUIRES: content of kinds that
  // read as zeros is zero.
  void Fill(ByteRange range, std::byte value, uint32_t layer = 1);
  void Put(uint64_t offset, Bytes content, uint32_t layer = 1);
  void SetStatus(ByteRange range, block::ExtentKind kind, uint32_t layer);

  std::vector<std::byte>& content() { return content_; }
  block::ExtentKind kind_at(uint64_t offset) const { return status_[offset].kind; }
  const std::vector<CallRecord>& calls() const { return calls_; }
  void ClearCalls() { calls_.clear(); }
  std::size_t CountCalls(NodeCall call) const;
  // Calls inside at the moment, and the largest number seen.
  int in_flight() const { return in_flight_; }
  int most_in_flight() const { return most_in_flight_; }

 private:
  struct ByteStatus {
    block::ExtentKind kind = block::ExtentKind::kUnallocated;
    uint32_t layer = 0;
    friend bool operator==(const ByteStatus&, const ByteStatus&) = default;
  };

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount size) override;
  Task<absl::Status> DoClose() override;

  // Waits at random, if deferred.
  Task<void> Pause();
  absl::Status Arrive(NodeCall call, ByteRange range, bool durable = false);
  void Leave() { --in_flight_; }
  // The end of the next step of a call that goes byte-wise from `from` to `end`.
  uint64_t StepEnd(uint64_t from, uint64_t end);

  const MemoryNodeOptions options_;
  std::vector<std::byte> content_;
  std::vector<ByteStatus> status_;
  std::vector<CallRecord> calls_;
  Fault fault_;
  runtime::ReadyQueue* ready_ = nullptr;
  RandomSource* random_ = nullptr;
  int in_flight_ = 0;
  int most_in_flight_ = 0;
};

}  // namespace gabion::test
