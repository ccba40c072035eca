#include "engine/filters/manifest.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/staging.h"

namespace gabion::filters {
namespace {

using block::Limits;
using block::StagingPool;

constexpr uint64_t kSmallestBlock = 512;
constexpr uint64_t kLargestBlock = kMiB;
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;
constexpr runtime::Duration kQuietTime = std::chrono::seconds(10);

class ManifestCheck final : public LiveFilter<ManifestOptions> {
 public:
  ManifestCheck(block::Node& child, Environment environment, const std::string& entry_id,
                const Manifest& manifest, BlockHash& hash, const ManifestOptions& options)
      : LiveFilter(child, Derive(child.limits(), manifest, entry_id), std::move(environment)),
        entry_id_(entry_id),
        manifest_(manifest),
        block_(manifest.block_size),
        hash_(hash),
        options_(options),
        staging_(this->environment().ready, kStagingBudget, kPage) {
    CHECK_EQ(child.limits().alignment.value, 1u);
    CHECK_EQ(child.limits().memory_alignment, 1u);
    CHECK_GE(child.limits().size.value, manifest.size.value);
    CHECK(IsPowerOfTwo(block_));
    CHECK_GE(block_, kSmallestBlock);
    CHECK_LE(block_, kLargestBlock);
    CHECK_LE(hash.digest_bytes(), BlockHash::kLongestDigest);
    const uint64_t blocks = RoundUp(manifest.size.value, block_) / block_;
    CHECK_EQ(manifest.digests.size(), blocks * hash.digest_bytes());
  }

  void Configure(const ManifestOptions& options) override { options_ = options; }

  Statistics GetStatistics() const override {
    Statistics statistics;
    statistics.counters = {{"checked_bytes", checked_bytes_}, {"mismatches", mismatches_}};
    return statistics;
  }

  void TakeOver(Filter& before) override {
    const auto& other = static_cast<const ManifestCheck&>(before);
    checked_bytes_ = other.checked_bytes_;
    mismatches_ = other.mismatches_;
    quiet_until_ = other.quiet_until_;
  }

 private:
  static Limits Derive(const Limits& child, const Manifest& manifest, const std::string& entry_id) {
    Limits limits = child;
    limits.size = std::min(child.size, manifest.size);
    limits.writable = false;
    if (limits.preferred.value < manifest.block_size) {
      limits.preferred.value = manifest.block_size;
      limits.preferred_from = entry_id;
    }
    return limits;
  }
  Limits DeriveLimits(const Limits& child) const override {
    return Derive(child, manifest_, entry_id_);
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::UnimplementedError("a disk with a manifest cannot change its size"));
  }

  ByteRange BlocksAround(ByteRange range) const {
    return AlignOutward(range, ByteCount{block_}, limits().size);
  }
  Task<absl::Status> ReadWhole(ByteRange range, MutableBytes dst);
  Task<absl::Status> ReadPart(ByteRange part, MutableBytes dst);
  // `bytes` are the block at `at`.
  Task<absl::Status> Check(ByteOffset at, Bytes bytes);

  const std::string entry_id_;
  const Manifest& manifest_;
  const uint64_t block_;
  BlockHash& hash_;
  ManifestOptions options_;
  StagingPool staging_;
  uint64_t checked_bytes_ = 0;
  uint64_t mismatches_ = 0;
  runtime::Instant quiet_until_;
};

Task<absl::Status> ManifestCheck::DoRead(ByteRange range, MutableBytes dst) {
  while (!range.empty()) {
    const uint64_t block_end = RoundDown(range.offset.value, block_) + block_;
    ByteRange piece = Intersect(range, Range(range.offset.value, block_end - range.offset.value));
    const bool is_whole = BlocksAround(piece) == piece;
    if (is_whole) {
      const bool to_end = range.end().value == limits().size.value;
      const uint64_t end = to_end ? range.end().value : RoundDown(range.end().value, block_);
      piece.length.value = end - piece.offset.value;
    }
    const MutableBytes bytes = dst.first(piece.length.value);
    if (is_whole) {
      CO_RETURN_IF_ERROR(co_await ReadWhole(piece, bytes));
    } else {
      CO_RETURN_IF_ERROR(co_await ReadPart(piece, bytes));
    }
    dst = dst.subspan(bytes.size());
    range = ByteRange{piece.end(), range.end() - piece.end()};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ManifestCheck::ReadWhole(ByteRange range, MutableBytes dst) {
  CO_RETURN_IF_ERROR(co_await child().Read(range, dst));
  ByteOffset at = range.offset;
  for (Bytes rest = dst; !rest.empty();) {
    const Bytes block = rest.first(std::min<uint64_t>(rest.size(), block_));
    CO_RETURN_IF_ERROR(co_await Check(at, block));
    at = at + ByteCount{block.size()};
    rest = rest.subspan(block.size());
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ManifestCheck::ReadPart(ByteRange part, MutableBytes dst) {
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await staging_.Take(whole.length.value);
  const MutableBytes bytes = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await child().Read(whole, bytes));
  CO_RETURN_IF_ERROR(co_await Check(whole.offset, bytes));
  std::memcpy(dst.data(), bytes.data() + (part.offset - whole.offset).value, dst.size());
  co_return absl::OkStatus();
}

Task<absl::Status> ManifestCheck::Check(ByteOffset at, Bytes bytes) {
  std::array<std::byte, BlockHash::kLongestDigest> room;
  const MutableBytes digest = MutableBytes(room).first(hash_.digest_bytes());
  co_await hash_.Hash(bytes, digest);
  checked_bytes_ += bytes.size();
  const Bytes expected =
      Bytes(manifest_.digests).subspan(at.value / block_ * digest.size(), digest.size());
  if (std::equal(digest.begin(), digest.end(), expected.begin())) co_return absl::OkStatus();
  ++mismatches_;
  const std::string message = absl::StrCat("the ", bytes.size(), " bytes at ", at.value,
                                           " have another checksum than the manifest says");
  const absl::Status finding = Blame(absl::DataLossError(message));
  if (!options_.report_only) co_return finding;
  const runtime::Instant now = environment().clock.Now();
  if (now < quiet_until_) co_return absl::OkStatus();
  quiet_until_ = now + kQuietTime;
  environment().logger.Log(LogLevel::kWarning, "filters", finding.ToString());
  co_return absl::OkStatus();
}

}  // namespace

std::unique_ptr<LiveFilter<ManifestOptions>> NewManifestCheck(
    block::Node& child, Environment environment, const std::string& entry_id,
    const Manifest& manifest, BlockHash& hash, const ManifestOptions& options) {
  return std::make_unique<ManifestCheck>(child, std::move(environment), entry_id, manifest, hash,
                                         options);
}

}  // namespace gabion::filters
