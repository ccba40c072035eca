// The oracle: what a disk may read as, given what was asked of it, what was answered, and when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/block/extent.h"
#include "engine/block/limits.h"
#include "tests/sim/content.h"

namespace gabion::sim {

enum class Effect : uint8_t {
  kData,  // the content of the operation
  kZeros,
  kDiscard,  // zeros, or what was there
};

// Keeps for each byte the operations whose effect it may show. The rules:
//
// (1) An operation that has succeeded replaces those that had ended before it began. Operations
//     that overlap in time may end in any order. One that failed, a discard, and one that is in
//     flight replace nothing, but may show.
// (2) A look (read or status) may see each effect that was not replaced before the look began. Each
//     sector, or part of one that belongs together, shows one effect, not a mix.
// (3) What a look saw while nothing was going on stays: looks that end later see the same.
// (4) A crash brings back what was replaced, unless the replacement was durable: by itself, or
//     because a flush began after it was done. What rule (3) has excluded counts as replaced.
//
// Owned by a simulation; used on its thread. Knows nothing of nodes, formats and files.
class Model {
 public:
  // A point in time. Every event has its own.
  using Moment = uint64_t;

  // Operations 0 and 1 have always been: the content of the image below, and zeros.
  static constexpr OpId kBase = 0;
  static constexpr OpId kNothing = 1;

  // Zeros but for `base`, which has the content of kBase.
  Model(const Content& content, uint64_t size, const std::vector<ByteRange>& base);

  uint64_t size() const { return size_; }
  OpId operations() const { return ops_.size(); }

  // Operations that change the disk. Each is begun and then ended in one of three ways.
  OpId Begin(Effect effect, ByteRange range);
  void Succeed(OpId op, bool durable);
  void Fail(OpId op);
  void Withdraw(OpId op);  // it has answered that it did nothing at all

  Moment BeginFlush() { return ++now_; }
  void EndFlush(Moment begun);

  // Looks. What was seen is checked before EndLook().
  Moment BeginLook();
  void EndLook(Moment begun) { looks_.erase(begun); }
  // `lasting`: what was seen is on stable storage, because nothing has been done since a crash.
  absl::Status CheckRead(Moment begun, ByteRange range, Bytes seen, bool lasting = false);
  absl::Status CheckExtents(Moment begun, ByteRange range, const block::ExtentList& extents,
                            std::size_t max_extents, const block::Limits& limits);

  // Whatever is in flight never ends.
  void Crash();

  // Parts with a history of their own; for tests, and as a measure of cost.
  std::size_t segments() const { return segments_.size(); }

 private:
  static constexpr Moment kNever = ~uint64_t{0};

  struct Op {
    Effect effect;
    ByteRange range;
    Moment begun;
    Moment ended;
  };
  // An effect that some bytes may show.
  struct Candidate {
    OpId op;
    Moment gone = kNever;  // looks that begin later do not see it
    bool buried = false;   // nor does a crash bring it back
    friend bool operator==(const Candidate&, const Candidate&) = default;
  };
  struct Segment {
    uint64_t end;
    std::vector<Candidate> candidates;
  };
  using Segments = std::map<uint64_t, Segment>;  // by begin; gapless

  // Makes `at` the begin of a segment, unless it is the end of the disk.
  void SplitAt(uint64_t at);
  Segments::iterator SegmentOf(uint64_t at);
  // Merges the segments of `range` with equal neighbours, and forgets what cannot show any more.
  void Tidy(ByteRange range);
  bool Shows(const Candidate& candidate, uint64_t offset, Bytes seen) const;
  bool MayBeZero(const Segment& segment, Moment begun) const;
  // True if nothing that concerns the segment was going on since `begun`.
  bool Quiet(const Segment& segment, Moment begun) const;
  // What is gone since then, a look that began at `begun` and ends now may see. In quiet that is
  // nothing: only other looks can have excluded anything meanwhile (3).
  Moment Since(const Segment& segment, Moment begun) const;
  absl::Status CheckPart(Moment begun, uint64_t offset, Bytes seen, bool lasting);
  absl::Status Unexpected(Moment begun, uint64_t offset, Bytes seen, const Segment& segment) const;
  std::string Expected(Moment begun, const Segment& segment) const;
  absl::Status CheckZeros(Moment begun, ByteRange range);

  const Content content_;
  const uint64_t size_;
  Moment now_ = 0;
  std::vector<Op> ops_;
  std::set<OpId> in_flight_;
  std::set<Moment> looks_;
  Segments segments_;
};

}  // namespace gabion::sim
