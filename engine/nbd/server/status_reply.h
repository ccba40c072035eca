// What a reply to BLOCK_STATUS says: merges the byte-exact atoms of a disk to descriptors. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/block_status.h"
#include "engine/block/extent.h"

namespace gabion::nbd {

// The longest extent that a 32-bit descriptor carries: a multiple of every granule.
inline constexpr uint64_t kLongestCompactDescriptor = 0xffff0000;
// The protocol's bound on descriptors in one chunk, and ours unless configured.
inline constexpr std::size_t kMostDescriptors = std::size_t{1} << 20;
inline constexpr std::size_t kDefaultDescriptors = 131072;

struct StatusDescriptor {
  uint64_t length = 0;
  uint64_t status = 0;
  friend bool operator==(const StatusDescriptor&, const StatusDescriptor&) = default;
};

struct StatusRequest {
  ByteRange range;    // not empty, within the export
  bool one = false;   // NBD_CMD_FLAG_REQ_ONE
  bool wide = false;  // 64-bit descriptors (extended headers)
};

// Of the export, as the connection knows it.
struct StatusOptions {
  ByteCount granule{1};    // the export's minimum block size
  ByteCount export_size;   // a multiple of the granule
  ByteCount content_size;  // Limits::content_size(); what is behind it is padding
  uint32_t layers = 1;     // Limits::layers
  std::size_t most_descriptors = kDefaultDescriptors;  // per context; at least 1
  // Work bound: after so many atoms the reply ends at the next unit. At least 1.
  std::size_t most_atoms = std::size_t{1} << 20;
};

// One request. The session asks the disk for wanted(), feeds what it answers (in one graph epoch:
// all contexts come from the same walk, status rule S-19), until done(). Then each context has its
// descriptors:
//   - they start at the request's offset, and cover it, or a prefix of it where a bound was
//     reached; only the last may reach behind the request, to the end of its unit at most;
//   - every boundary but the first and, with `one`, the last is a multiple of the granule;
//   - there is at least one; none is empty.
// Plain value of one coroutine.
class StatusPlan {
 public:
  // One merge operator per context that the reply is about, in the reply's order.
  StatusPlan(const StatusRequest& request, const StatusOptions& options,
             std::span<const block::MergeOperator> contexts);

  // Nothing more is needed.
  bool done() const;

  // What to ask Node::BlockStatus for next; empty when no context needs atoms any more. A disk may
  // answer any prefix.
  ByteRange wanted() const;

  // The disk's answer: atoms that start where wanted() does, and do not reach behind it.
  void Feed(const block::ExtentList& atoms);

  // The disk cannot tell the status of wanted(): base:allocation then says data, which is always
  // true enough; depths have no safe value and end where knowledge ends (rule S-9).
  void FeedUnknown();

  // For a context whose values do not come from atoms (kAny): where its values are wanted from, and
  // the next `length` bytes of them. Values behind the request are ignored.
  ByteRange wanted_values(std::size_t index) const;
  void FeedValue(std::size_t index, ByteCount length, uint64_t value);

  // REQUIRES of both: done().
  // False: the context has no answer, and the reply is an error.
  bool has_answer(std::size_t index) const;
  // Appends the context's descriptors.
  void AppendDescriptors(std::size_t index, std::vector<StatusDescriptor>& out) const;

 private:
  struct Context {
    block::MergeOperator op;
    block::UnitMerger merger;
    bool done = false;
    uint64_t fed = 0;  // end of what it knows; for kAny only
  };

  bool HasEnough(const Context& context) const;
  // Ends the input of the atom contexts at the end of the content.
  void FinishAtoms();
  void UpdateDone();

  const StatusRequest request_;
  const StatusOptions options_;
  uint64_t begin_ = 0;  // the request, rounded outwards to whole units
  uint64_t end_ = 0;
  uint64_t content_end_ = 0;  // the part of it that is not padding
  uint64_t at_ = 0;           // how far the atoms have come
  std::size_t atoms_ = 0;
  std::vector<Context> contexts_;
};

}  // namespace gabion::nbd
