#include "engine/filters/align.h"

#include <algorithm>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/block/aligned_node.h"
#include "engine/block/filter_node.h"

namespace gabion::filters {
namespace {

using block::Limits;
using block::WriteOptions;
using block::ZeroOptions;

constexpr uint64_t kLargestAlignment = 2 * kMiB;
// A request in many small pieces lets others run after so many of them.
constexpr uint64_t kPiecesInARow = 64;

ByteCount AlignmentAbove(const Limits& child, const AlignOptions& options) {
  return std::max(child.alignment, ByteCount{options.alignment});
}

// What goes to the child: takes requests of whole units only, and cuts them into pieces.
class Pieces final : public block::FilterNode {
 public:
  Pieces(block::Node& child, runtime::ReadyQueue& ready, std::string entry_id,
         const AlignOptions& options)
      : FilterNode(child, LimitsAbove(child.limits(), entry_id, options)),
        ready_(ready),
        entry_id_(std::move(entry_id)),
        options_(options) {}

 private:
  static Limits LimitsAbove(const Limits& child, const std::string& entry_id,
                            const AlignOptions& options) {
    Limits limits = child;
    limits.alignment = AlignmentAbove(child, options);
    CHECK(IsPowerOfTwo(limits.alignment.value));
    CHECK_LE(limits.alignment.value, kLargestAlignment);
    limits.alignment_from = entry_id;
    return limits;
  }
  Limits DeriveLimits(const Limits& child) const override {
    return LimitsAbove(child, entry_id_, options_);
  }

  // The longest piece: whole units, also in memory.
  uint64_t Longest() const {
    if (options_.max_transfer == 0) return ~uint64_t{0};
    const uint64_t unit = std::max<uint64_t>(limits().alignment.value, limits().memory_alignment);
    return RoundDown(std::max<uint64_t>(options_.max_transfer, unit), unit);
  }

  // Runs `piece(part)` for each part of `range`, in order, up to the first error.
  template <typename Piece>
  Task<absl::Status> ForEachPiece(ByteRange range, Piece piece) {
    uint64_t count = 0;
    while (!range.empty()) {
      if (++count % kPiecesInARow == 0) co_await ready_.Yield();
      const ByteCount length = std::min(range.length, ByteCount{Longest()});
      Task<absl::Status> task = piece.Start(child(), ByteRange{range.offset, length});
      absl::Status status = co_await task;
      if (!status.ok()) co_return status;
      range = ByteRange{range.offset + length, range.length - length};
    }
    co_return absl::OkStatus();
  }

  struct ReadPiece {
    ByteOffset begin;
    MutableBytes dst;
    Task<absl::Status> Start(block::Node& node, ByteRange part) const {
      return node.Read(part, dst.subspan((part.offset - begin).value, part.length.value));
    }
  };
  struct WritePiece {
    ByteOffset begin;
    Bytes src;
    WriteOptions options;
    Task<absl::Status> Start(block::Node& node, ByteRange part) const {
      return node.Write(part, src.subspan((part.offset - begin).value, part.length.value), options);
    }
  };
  struct ZeroPiece {
    ZeroOptions options;
    Task<absl::Status> Start(block::Node& node, ByteRange part) const {
      return node.Zero(part, options);
    }
  };
  struct DiscardPiece {
    Task<absl::Status> Start(block::Node& node, ByteRange part) const { return node.Discard(part); }
  };

  // Fast zeros leave the content as it was if they fail: once the first piece has been fast, the
  // others are zeroed in any case.
  Task<absl::Status> ZeroFast(ByteRange range, ZeroOptions options) {
    const ByteCount first{Longest()};
    absl::Status status = co_await child().Zero(ByteRange{range.offset, first}, options);
    if (!status.ok()) co_return status;
    options.fast_only = false;
    const ByteRange rest{range.offset + first, range.length - first};
    status = co_await ForEachPiece(rest, ZeroPiece{options});
    co_return status;
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    if (range.length.value <= Longest()) return child().Read(range, dst);
    return ForEachPiece(range, ReadPiece{range.offset, dst});
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    if (range.length.value <= Longest()) return child().Write(range, src, options);
    return ForEachPiece(range, WritePiece{range.offset, src, options});
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    if (range.length.value <= Longest()) return child().Zero(range, options);
    return options.fast_only ? ZeroFast(range, options) : ForEachPiece(range, ZeroPiece{options});
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (range.length.value <= Longest()) return child().Discard(range);
    return ForEachPiece(range, DiscardPiece{});
  }

  runtime::ReadyQueue& ready_;
  const std::string entry_id_;
  const AlignOptions options_;
};

// The nodes that do the work, made before the filter that stands on them.
class Parts {
 protected:
  Parts(block::Node& child, runtime::ReadyQueue& ready, const std::string& entry_id,
        const AlignOptions& options)
      : pieces_(child, ready, entry_id, options), aligned_(pieces_, ready) {}
  ~Parts() = default;

  Pieces pieces_;
  block::AlignedNode aligned_;
};

class Align final : private Parts, public Filter {
 public:
  Align(block::Node& below, Environment environment, const std::string& entry_id,
        const AlignOptions& options)
      : Parts(below, environment.ready, entry_id, options),
        Filter(aligned_, LimitsAbove(aligned_.limits()), std::move(environment)) {}

  void Refresh() override {
    pieces_.Refresh();
    aligned_.Refresh();
    Filter::Refresh();
  }

 private:
  // Odd requests are what the filter is there for: nobody need avoid them.
  static Limits LimitsAbove(const Limits& aligned) {
    Limits limits = aligned;
    limits.emulated_alignment = ByteCount{1};
    limits.emulated_from.clear();
    return limits;
  }
  Limits DeriveLimits(const Limits& aligned) const override { return LimitsAbove(aligned); }
};

}  // namespace

std::unique_ptr<Filter> NewAlign(block::Node& child, Environment environment,
                                 const std::string& entry_id, const AlignOptions& options) {
  return std::make_unique<Align>(child, std::move(environment), entry_id, options);
}

}  // namespace gabion::filters
