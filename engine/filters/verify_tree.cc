#include "engine/filters/verify_tree.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/block/staging.h"
#include "engine/filters/verifying/block_cache.h"
#include "engine/filters/verifying/verifier.h"
#include "engine/filters/verity/hasher.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::filters {
namespace {

using block::Limits;
using block::StagingPool;
using verity::Digest;
using verity::HashTree;
using verity::Misfits;
// Of blocks that lie side by side; nothing where it is not known, and the bytes do without.
using Digests = std::span<std::optional<Digest>>;

// About 50 us of hashing; the way to a worker and back takes some 6 us.
constexpr uint64_t kLargestInline = 64 * kKiB;
constexpr uint64_t kLongestPiece = 256 * kKiB;  // that is read and hashed at once, or one block
constexpr std::size_t kPiecesAtOnce = 4;
constexpr uint64_t kCacheBytes = 4 * kMiB;  // of hash blocks
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr uint64_t kHashStagingBudget = 4 * kMiB;
constexpr std::size_t kPage = 4096;

Limits LimitsAbove(const Limits& child, const HashTree& tree) {
  CHECK_EQ(child.padding.value, 0u);
  const ByteCount whole_blocks{RoundDown(child.size.value, tree.shape().data_block_bytes)};
  Limits limits = child;
  limits.size = std::min(tree.data_size(), whole_blocks);
  limits.writable = false;
  return limits;
}

class VerifyTree final : public verifying::Verifier {
 public:
  VerifyTree(block::Node& child, Environment environment, block::Node& hashes, HashTree tree,
             const Digest& root, runtime::Workers& workers, const VerifyOptions& options)
      : Verifier(child, LimitsAbove(child.limits(), tree), std::move(environment), hashes,
                 "the hash image", options),
        tree_(std::move(tree)),
        block_(tree_.shape().data_block_bytes),
        root_(root),
        workers_(workers),
        hasher_(tree_),
        cache_(kCacheBytes / tree_.shape().hash_block_bytes),
        staging_(this->environment().ready, kStagingBudget, kPage),
        hash_staging_(this->environment().ready, kHashStagingBudget, kPage) {}

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    if (FirstPiece(range) == range) return ReadPiece(range, dst);
    return ReadPieces(range, dst);
  }
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::PermissionDeniedError("a disk with a hash tree is read-only"));
  }
  Limits DeriveLimits(const Limits& child) const override { return LimitsAbove(child, tree_); }

  // What of `range` is read first: a part of one data block, or whole ones.
  ByteRange FirstPiece(ByteRange range) const;
  Task<absl::Status> ReadPieces(ByteRange range, MutableBytes dst);
  Task<absl::Status> ReadPiece(ByteRange piece, MutableBytes dst) {
    if (IsAligned(piece, ByteCount{block_})) return ReadBlocks(piece.offset.value / block_, dst);
    return ReadPart(piece, dst);
  }
  Task<absl::Status> ReadPart(ByteRange piece, MutableBytes dst);
  Task<absl::Status> ReadBlocks(uint64_t first, MutableBytes dst);

  // What blocks from `first` on should have: data blocks, whose digests are on level 0, or blocks
  // of the level below `level`. An error if the read must fail.
  Task<absl::Status> Expect(std::size_t level, uint64_t first, Digests expected);
  // A verified block of the tree, until the caller suspends; no bytes if there is none, and the
  // read need not fail.
  Task<absl::StatusOr<Bytes>> Load(std::size_t level, uint64_t block);
  absl::Status HashMismatch(std::size_t level, uint64_t block);

  // Here or by a worker, whichever is better for the length.
  Task<absl::StatusOr<Misfits>> Compare(Bytes bytes, Digests expected);
  Task<absl::StatusOr<Misfits>> CompareElsewhere(Bytes bytes, Digests expected);

  const HashTree tree_;
  const uint64_t block_;  // bytes of data
  const Digest root_;
  runtime::Workers& workers_;
  verity::Hasher hasher_;  // the shard's
  verifying::BlockCache cache_;
  // Who has memory for data may wait for memory for a hash block, and never the other way round.
  StagingPool staging_;
  StagingPool hash_staging_;
};

ByteRange VerifyTree::FirstPiece(ByteRange range) const {
  const uint64_t skipped = range.offset.value % block_;
  uint64_t length = std::min(range.length.value, block_ - skipped);
  if (length == block_) {
    length = RoundDown(std::min(range.length.value, std::max(kLongestPiece, block_)), block_);
  }
  return ByteRange{range.offset, ByteCount{length}};
}

Task<absl::Status> VerifyTree::ReadPieces(ByteRange range, MutableBytes dst) {
  absl::Status status;
  std::deque<Task<absl::Status>> pieces;
  while (!pieces.empty() || (!range.empty() && status.ok())) {
    if (!range.empty() && status.ok() && pieces.size() < kPiecesAtOnce) {
      const ByteRange piece = FirstPiece(range);
      pieces.push_back(ReadPiece(piece, dst.first(piece.length.value)));
      dst = dst.subspan(piece.length.value);
      range = ByteRange{piece.end(), range.length - piece.length};
    } else {
      const absl::Status one = co_await pieces.front();
      pieces.pop_front();
      status.Update(one);
    }
  }
  co_return status;
}

Task<absl::Status> VerifyTree::ReadPart(ByteRange piece, MutableBytes dst) {
  StagingPool::Buffer buffer = co_await staging_.Take(block_);
  const MutableBytes whole = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await ReadBlocks(piece.offset.value / block_, whole));
  const Bytes part = whole.subspan(piece.offset.value % block_, dst.size());
  std::copy(part.begin(), part.end(), dst.begin());
  co_return absl::OkStatus();
}

Task<absl::Status> VerifyTree::ReadBlocks(uint64_t first, MutableBytes dst) {
  Task<absl::Status> read = child().Read(Range(first * block_, dst.size()), dst);
  std::vector<std::optional<Digest>> expected(dst.size() / block_);
  const absl::Status found = co_await Expect(0, first, expected);
  const absl::Status status = co_await read;
  if (!status.ok()) co_return status;
  if (!found.ok()) co_return found;
  const absl::StatusOr<Misfits> misfits = co_await Compare(dst, expected);
  if (!misfits.ok()) co_return Blame(misfits.status());
  const auto known = std::count_if(expected.begin(), expected.end(),
                                   [](const auto& digest) { return digest.has_value(); });
  CountCompared(static_cast<uint64_t>(known) * block_);
  if (misfits->count == 0) co_return absl::OkStatus();
  const uint64_t block = first + misfits->first;
  co_return Mismatch(absl::StrCat("data block ", block, ", at byte ", block * block_,
                                  ", does not have the digest that the hash tree has of it"),
                     misfits->count);
}

Task<absl::Status> VerifyTree::Expect(std::size_t level, uint64_t first, Digests expected) {
  if (level == tree_.levels()) {
    expected[0] = root_;
    co_return absl::OkStatus();
  }
  for (std::size_t i = 0; i < expected.size();) {
    const uint64_t holder = tree_.HolderOf(first + i);
    CO_ASSIGN_OR_RETURN(const Bytes block, co_await Load(level, holder));
    for (; i < expected.size() && tree_.HolderOf(first + i) == holder; ++i) {
      if (!block.empty()) expected[i] = tree_.DigestIn(block, first + i);
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<Bytes>> VerifyTree::Load(std::size_t level, uint64_t block) {
  const ByteRange place = tree_.BlockAt(level, block);
  const Bytes kept = cache_.Find(place.offset.value);
  if (!kept.empty()) co_return kept;
  std::optional<Digest> digest;
  const Digests expected(&digest, 1);
  CO_RETURN_IF_ERROR(co_await Expect(level + 1, block, expected));
  if (!digest.has_value()) co_return Bytes();
  StagingPool::Buffer buffer = co_await hash_staging_.Take(place.length.value);
  const MutableBytes bytes = buffer.bytes();
  const absl::Status status = co_await reference().Read(place, bytes);
  if (!status.ok()) {
    CO_RETURN_IF_ERROR(ReferenceFailed(status));
    co_return Bytes();
  }
  CO_ASSIGN_OR_RETURN(const Misfits misfits, co_await Compare(bytes, expected));
  if (misfits.count > 0) {
    CO_RETURN_IF_ERROR(HashMismatch(level, block));
    co_return Bytes();
  }
  co_return cache_.Keep(place.offset.value, bytes);
}

absl::Status VerifyTree::HashMismatch(std::size_t level, uint64_t block) {
  const bool is_top = level + 1 == tree_.levels();
  return Mismatch(absl::StrCat("block ", block, " on level ", level, " of the hash tree, at byte ",
                               tree_.BlockAt(level, block).offset.value,
                               " of the hash image, does not have the ",
                               is_top ? "root digest" : "digest that the level above has of it"));
}

Task<absl::StatusOr<Misfits>> VerifyTree::Compare(Bytes bytes, Digests expected) {
  if (bytes.size() > kLargestInline) return CompareElsewhere(bytes, expected);
  return hasher_.Compare(bytes, expected);
}

Task<absl::StatusOr<Misfits>> VerifyTree::CompareElsewhere(Bytes bytes, Digests expected) {
  const auto compare = [this, bytes, expected] {
    verity::Hasher hasher(tree_);
    return hasher.Compare(bytes, expected);
  };
  absl::StatusOr<Misfits> misfits = co_await workers_.Run(compare);
  co_return misfits;
}

}  // namespace

Task<absl::StatusOr<HashTree>> ReadHashTree(block::Node& hashes) {
  CHECK_EQ(hashes.limits().alignment.value, 1u);
  CHECK_EQ(hashes.limits().memory_alignment, 1u);
  const ByteCount size = hashes.limits().content_size();
  std::vector<std::byte> start(std::min<uint64_t>(size.value, verity::kSuperblockBytes));
  CO_RETURN_IF_ERROR(co_await hashes.Read(Range(0, start.size()), start));
  co_return HashTree::Decode(start, size);
}

absl::StatusOr<std::unique_ptr<LiveFilter<VerifyOptions>>> NewVerifyTree(
    block::Node& child, Environment environment, block::Node& hashes, HashTree tree,
    Bytes root_digest, runtime::Workers& workers, const VerifyOptions& options) {
  if (root_digest.size() != tree.digest_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the root digest has ", root_digest.size(), " bytes, and one of ",
                     AsAbsl(verity::NameOf(tree.shape().algorithm)), " has ", tree.digest_bytes()));
  }
  if (child.limits().size < tree.data_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the hash tree is that of a disk of ", tree.data_size().value,
                     " bytes, and the disk has ", child.limits().size.value));
  }
  Digest root{};
  std::copy(root_digest.begin(), root_digest.end(), root.begin());
  return std::make_unique<VerifyTree>(child, std::move(environment), hashes, std::move(tree), root,
                                      workers, options);
}

}  // namespace gabion::filters
