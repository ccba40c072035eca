#include "engine/filters/readahead.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/base/align.h"
#include "engine/runtime/task_set.h"

namespace gabion::filters {
namespace {

// Where a client is that reads in order. Offsets and lengths in bytes.
struct Sequence {
  uint64_t next = 0;      // where its next read begins
  uint64_t asked_to = 0;  // up to here the child has been asked
  uint64_t window = 0;    // 0: it has been a single read so far
  bool under_way = false;
  uint64_t last_read = 0;  // its read's number; 0: there is none
};

constexpr std::size_t kSequences = 8;

class Readahead final : public LiveFilter<ReadaheadOptions> {
 public:
  Readahead(block::Node& child, Environment environment, const ReadaheadOptions& options)
      : LiveFilter(child, std::move(environment)),
        options_(options),
        asking_(this->environment().ready) {}

  void Configure(const ReadaheadOptions& options) override { options_ = options; }

  Task<void> Settle() override { return asking_.Drain(); }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    ++reads_;
    Sequence* const sequence = Find(range.offset.value);
    if (sequence == nullptr) {
      Remember(range);
      return child().Read(range, dst);
    }
    Task<absl::Status> read = child().Read(range, dst);  // before what is only a guess
    Advance(*sequence, range);
    return read;
  }

  // The child is resized alone, too.
  Task<absl::Status> DoResize(ByteCount size) override {
    co_await asking_.Drain();
    absl::Status status = co_await FilterNode::DoResize(size);
    co_return status;
  }

  Task<absl::Status> DoClose() override {
    co_await asking_.Drain();
    absl::Status status = co_await FilterNode::DoClose();
    co_return status;
  }

  Sequence* Find(uint64_t begin) {
    for (Sequence& sequence : sequences_) {
      if (sequence.next == begin && sequence.last_read > 0) return &sequence;
    }
    return nullptr;
  }

  // Begins a sequence in place of the one that has rested longest. One that is waited for stays, so
  // that no more than one Cache() for each place is ever under way.
  void Remember(ByteRange range) {
    Sequence* oldest = nullptr;
    for (Sequence& sequence : sequences_) {
      if (sequence.under_way) continue;
      if (oldest == nullptr || sequence.last_read < oldest->last_read) oldest = &sequence;
    }
    if (oldest == nullptr) return;
    *oldest = Sequence{.next = range.end().value, .last_read = reads_};
  }

  void Advance(Sequence& sequence, ByteRange range) {
    const uint64_t least = std::max(sequence.window, range.length.value);
    sequence.window = std::min<uint64_t>(options_.max_window, 2 * least);
    sequence.next = range.end().value;
    sequence.last_read = reads_;
    sequence.asked_to = std::max(sequence.asked_to, sequence.next);
    // In pieces of at least half a window: a call for each small read would cost more than it
    // saves.
    if (sequence.under_way || sequence.asked_to - sequence.next > sequence.window / 2) return;
    const ByteRange ahead = NotAskedFor(sequence);
    if (ahead.empty()) return;
    sequence.asked_to = ahead.end().value;
    sequence.under_way = true;
    asking_.Add(Ask(sequence, ahead));
  }

  // What of the window the child has not been asked for, as far as the disk goes.
  ByteRange NotAskedFor(const Sequence& sequence) const {
    const uint64_t size = limits().size.value;
    const uint64_t window = std::min(sequence.window, size - sequence.next);
    uint64_t end = sequence.next + window;
    if (end < size) end = RoundDown(end, limits().alignment.value);
    return Range(sequence.asked_to, end > sequence.asked_to ? end - sequence.asked_to : 0);
  }

  Task<void> Ask(Sequence& sequence, ByteRange range) {
    const absl::Status ignored = co_await child().Cache(range);
    sequence.under_way = false;
  }

  ReadaheadOptions options_;
  std::array<Sequence, kSequences> sequences_;
  uint64_t reads_ = 0;
  runtime::TaskSet asking_;
};

}  // namespace

std::unique_ptr<LiveFilter<ReadaheadOptions>> NewReadahead(block::Node& child,
                                                           Environment environment,
                                                           const ReadaheadOptions& options) {
  return std::make_unique<Readahead>(child, std::move(environment), options);
}

}  // namespace gabion::filters
