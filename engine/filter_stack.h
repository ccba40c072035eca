// The filters of an export as nodes: between the root of its image and what its clients see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/block/node.h"
#include "engine/filter_spec.h"
#include "engine/filters/filter.h"
#include "engine/image.h"
#include "engine/io/directory.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"
#include "engine/shared_states.h"

namespace gabion::engine {

// Most entries of a stack.
inline constexpr std::size_t kMostFilters = 64;

// What it takes to open encrypted disks.
struct KeySurroundings {
  const io::Directory& secrets;  // the files that entries name
  runtime::Workers& workers;
  runtime::Workers& key_workers;  // as OpenLuks() wants them
};

using Pools = std::map<std::string, const io::Directory*>;  // by their names

// What a stack asks of its shard, on it.
class StackHost {
 public:
  // Scratch space: `size` bytes of zeros in a file without a name. Closed by whoever gets it.
  virtual Task<absl::StatusOr<std::unique_ptr<block::Node>>> NewScratchFile(
      const io::Directory* pool, ByteCount size) = 0;
  // Opens the image and counts a user, until ReleaseImage(). Errors of Image::AddUser().
  virtual Task<absl::StatusOr<Image*>> AcquireImage(ImageSpec spec, const io::Directory* pool,
                                                    ImageUse use) = 0;
  virtual Task<absl::Status> ChangeUse(Image* image, ImageUse from, ImageUse to) = 0;
  virtual Task<void> ReleaseImage(Image* image, ImageUse use) = 0;
  // For work that would stall the shard.
  virtual runtime::Workers& workers() = 0;

 protected:
  ~StackHost() = default;
};

// What a stack stands in; all of it outlives the stack.
struct StackSurroundings {
  runtime::ReadyQueue& ready;
  runtime::Clock& clock;
  Logger& logger;
  SharedFilterStates& states;
  // The export, and which of those that had its name: inline filters keep their state by it.
  std::string export_name;
  uint64_t incarnation = 0;
  const KeySurroundings* keys = nullptr;  // null: encrypted disks are not opened here
  // Null: there are no scratch files, and no other images.
  StackHost* host = nullptr;
  const io::Directory* pool = nullptr;  // of the export's image
  const Pools* pools = nullptr;         // of other images
  bool read_only = false;               // the export
};

// The order is that of the entries. Where a filter needs more alignment than what is above it
// keeps, an AlignedNode is put between them, and one at the top, so that top() takes any range:
// clients are told of the largest alignment that was needed above the last place where somebody
// asked for emulation (limits().emulated_alignment), and their replies are merged to it. So every
// order of entries gives aligned replies.
//
// Owned by an export's server; used on its shard. A stack that was built is not in use until
// something is made to stand on top().
class FilterStack {
 public:
  // Reads what filters must know before they start (partition tables, and headers of encrypted
  // disks, which takes seconds). kInvalidArgument FILTER_PARAMETERS_INVALID, with entry-id, index
  // and field; kFailedPrecondition FILTER_KIND_DISABLED; errors of AcquireImage(). `surroundings`
  // is copied; `root` outlives the stack.
  //
  // What entries of `before` keep (changes kept apart, cached blocks, open references) is used by
  // the new stack, too, where they stay as they are above the same bytes. It is the old one's until
  // TakeOver(). `before` may be null; it outlives the stack, or TakeOver().
  static Task<absl::StatusOr<std::unique_ptr<FilterStack>>> Build(StackSurroundings surroundings,
                                                                  block::Node& root,
                                                                  std::vector<FilterEntry> entries,
                                                                  const FilterStack* before);
  ~FilterStack();
  FilterStack(const FilterStack&) = delete;
  FilterStack& operator=(const FilterStack&) = delete;

  // Alignment 1, any buffer.
  block::Node& top() { return *top_; }

  const std::vector<FilterEntry>& entries() const { return entries_; }

  // True if `entries` differ from those that there are in parameters only that change while
  // requests are in flight. Configure() then makes them those that there are.
  bool CanConfigure(const std::vector<FilterEntry>& entries) const;
  // False if it takes another stack, because the export changes its read_only.
  bool CanConfigureFor(bool read_only_changes) const;
  // REQUIRES: CanConfigure(entries).
  void Configure(const std::vector<FilterEntry>& entries);

  // Called when this stack has taken the place of `before` and no request is in flight: filters
  // whose entries stay go on where those of `before` were, and the parameters hold.
  void TakeOver(FilterStack& before);

  // False if a client of `other` would see other bytes here.
  bool ShowsSameBytes(const FilterStack& other) const;

  // The image has become longer.
  void Refresh();
  // Then filters that keep changes apart need more space: with KeepsScratch(), while requests are
  // under way. Images that changes are kept in grow, too. Refreshes what is above them.
  bool KeepsScratch() const;
  // A filter needs this image, which is not the export's own.
  bool Needs(const Image& image) const;
  Task<absl::Status> GrowScratch();
  // An image has changes that were made earlier.
  bool HasKeptChanges() const;
  // Other images than the export's are not used for more than this stack needs, if the export is or
  // is not `read_only`. No request is in flight that would need more.
  Task<void> LowerUses(bool read_only);

  // The export is going away: see Filter::Hurry().
  void Hurry();

  // Caches write through from now on, and what they had is below them, and flushed, if that was
  // well. ResumeCaches() brings their mode back.
  Task<absl::Status> WriteBack();
  void ResumeCaches();
  bool HasCaches() const;
  // Something is in a cache only.
  bool HoldsUnwritten() const;

  // Ends what the filters do by themselves; caches write back; lets go of what entries keep. Before
  // destruction, once, when no request is in flight.
  Task<void> Settle();

  std::vector<FilterStatistics> GetStatistics() const;

  // What a request passes, from the top.
  struct Level {
    const block::FilterNode* node = nullptr;  // null: a bypassed entry
    const FilterEntry* entry = nullptr;       // null: an AlignedNode that was put in
    Image* keeps_in = nullptr;                // what it keeps itself is in this image
  };
  std::vector<Level> Levels() const;

 private:
  class Builder;
  // What an entry keeps from one stack to the next, if it stays in its place.
  struct Kept {
    std::unique_ptr<block::Node> scratch;
    std::unique_ptr<filters::CowState> cow;
    std::unique_ptr<filters::CacheState> cache;
    Image* image = nullptr;               // another one than the export's
    ImageUse use = ImageUse::kReadAlone;  // of it; what stacks have needed so far
  };
  // An entry's nodes. Bypassed ones have none, but keep what they share.
  struct Place {
    SharedStates<filters::ThrottleGroup>::Ref throttle;
    SharedStates<filters::FaultState>::Ref fault;
    std::unique_ptr<Kept> own;
    Kept* kept = nullptr;                // `own`, or that of the stack before
    std::optional<ImageUse> use_before;  // of its image, which this stack has changed
    std::unique_ptr<filters::Filter> filter;
    // Of an encrypted disk: which it is, and the vector of its first byte, in bytes.
    std::string cipher;
    uint64_t cipher_offset = 0;
  };
  // An encrypted disk that bytes come through: which, and the vector of the first of them.
  struct Translation {
    std::string cipher;
    uint64_t at = 0;
    friend bool operator==(const Translation&, const Translation&) = default;
  };

  // Consecutive bytes of the top, and where in the image they come from; none: made up.
  struct Piece {
    std::optional<ByteOffset> from;
    ByteCount length;
    std::vector<Translation> through;
    friend bool operator==(const Piece&, const Piece&) = default;
  };

  // What the top of some levels shows.
  struct View {
    const Kept* base = nullptr;  // of the topmost entry that has bytes of its own; null: the image
    std::vector<Piece> pieces;   // of the base
    friend bool operator==(const View&, const View&) = default;
  };
  struct Floor {
    block::FilterNode* node;
    std::optional<std::size_t> entry;  // none: an AlignedNode
  };

  FilterStack(block::Node& root, StackHost* host, std::vector<FilterEntry> entries);

  // Makes room for a disk of `size`.
  static Task<absl::Status> GrowTo(const Kept& kept, ByteCount size);
  filters::LiveFilter<filters::CacheOptions>* CacheAt(std::size_t entry) const;  // null: none
  std::size_t LevelsBelow(std::size_t entry) const;
  View ViewOf(std::size_t levels) const;
  // False if `piece` does not go on where `last` ends.
  static bool GoesOn(const Piece& last, const Piece& piece);

  // In the order of `entries_`.
  std::vector<FilterEntry> entries_;
  std::vector<Place> places_;
  // AlignedNodes, and all nodes from the bottom, to be refreshed.
  std::vector<std::unique_ptr<block::FilterNode>> aligned_;
  std::vector<Floor> upwards_;
  block::Node& root_;
  StackHost* const host_;
  block::Node* top_;
};

}  // namespace gabion::engine
