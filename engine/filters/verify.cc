#include "engine/filters/verify.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"
#include "engine/filters/verifying/verifier.h"

namespace gabion::filters {
namespace {

using block::Limits;
using block::RangeLock;
using block::RangeLockMode;
using block::StagingPool;
using block::WriteOptions;
using block::ZeroOptions;

constexpr uint64_t kLongestPiece = kMiB;  // that is compared at once
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;

class Verify final : public verifying::Verifier {
 public:
  Verify(block::Node& child, Environment environment, block::Node& reference,
         const VerifyOptions& options)
      : Verifier(child, Derive(child.limits(), reference.limits()), std::move(environment),
                 reference, "the reference", options),
        lock_(this->environment().ready),
        staging_(this->environment().ready, kStagingBudget, kPage) {}

 private:
  static Limits Derive(const Limits& child, const Limits& reference) {
    Limits limits = child;
    limits.size = std::min(child.size, reference.size);
    limits.writable = child.writable && reference.writable;
    limits.fast_zero = child.fast_zero && reference.fast_zero;
    return limits;
  }
  Limits DeriveLimits(const Limits& child) const override {
    return Derive(child, reference().limits());
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (!limits().fast_zero) return absl::OkStatus();
    return DoZero(range, ZeroOptions{});
  }
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::UnimplementedError("a disk that is compared cannot change its size"));
  }
  Task<absl::Status> DoClose() override { return DoFlush(); }

  Task<absl::Status> ReadPiece(ByteRange piece, MutableBytes dst);

  RangeLock lock_;
  StagingPool staging_;
};

Task<absl::Status> Verify::DoRead(ByteRange range, MutableBytes dst) {
  const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
  while (!range.empty()) {
    const uint64_t length = std::min(range.length.value, kLongestPiece);
    const ByteRange piece{range.offset, ByteCount{length}};
    CO_RETURN_IF_ERROR(co_await ReadPiece(piece, dst.first(length)));
    dst = dst.subspan(length);
    range = ByteRange{piece.end(), range.end() - piece.end()};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Verify::ReadPiece(ByteRange piece, MutableBytes dst) {
  StagingPool::Buffer buffer = co_await staging_.Take(dst.size());
  const MutableBytes expected = buffer.bytes();
  Task<absl::Status> read = child().Read(piece, dst);
  Task<absl::Status> read_reference = reference().Read(piece, expected);
  const absl::Status status = co_await read;
  const absl::Status reference_status = co_await read_reference;
  if (!status.ok()) co_return status;
  if (!reference_status.ok()) co_return ReferenceFailed(reference_status);
  CountCompared(dst.size());
  const auto differs = std::mismatch(dst.begin(), dst.end(), expected.begin()).first;
  if (differs == dst.end()) co_return absl::OkStatus();
  const auto at = static_cast<uint64_t>(differs - dst.begin());
  co_return Mismatch(absl::StrCat("byte ", piece.offset.value + at, " is 0x",
                                  absl::Hex(int(dst[at])), ", and 0x", absl::Hex(int(expected[at])),
                                  " in the reference"));
}

Task<absl::Status> Verify::DoWrite(ByteRange range, Bytes src, WriteOptions options) {
  const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kExclusive);
  CO_RETURN_IF_ERROR(co_await child().Write(range, src, options));
  const absl::Status status = co_await reference().Write(range, src, options);
  co_return OfReference(status);
}

Task<absl::Status> Verify::DoZero(ByteRange range, ZeroOptions options) {
  const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kExclusive);
  CO_RETURN_IF_ERROR(co_await child().Zero(range, options));
  options.fast_only = false;  // it has begun
  const absl::Status status = co_await reference().Zero(range, options);
  co_return OfReference(status);
}

Task<absl::Status> Verify::DoFlush() {
  Task<absl::Status> flush = child().Flush();
  Task<absl::Status> flush_reference = reference().Flush();
  absl::Status status = co_await flush;
  const absl::Status reference_status = co_await flush_reference;
  status.Update(OfReference(reference_status));
  co_return status;
}

Task<absl::Status> Verify::DoCache(ByteRange range) {
  Task<absl::Status> cache = child().Cache(range);
  Task<absl::Status> cache_reference = reference().Cache(range);
  absl::Status status = co_await cache;
  const absl::Status reference_status = co_await cache_reference;
  reference_status.IgnoreError();  // a hint
  co_return status;
}

}  // namespace

std::unique_ptr<LiveFilter<VerifyOptions>> NewVerify(block::Node& child, Environment environment,
                                                     block::Node& reference,
                                                     const VerifyOptions& options) {
  return std::make_unique<Verify>(child, std::move(environment), reference, options);
}

}  // namespace gabion::filters
