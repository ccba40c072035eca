#include "engine/filters/luks.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <climits>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/extent.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::filters {
namespace {

constexpr uint32_t kIvUnit = 512;
constexpr std::size_t kIvBytes = 16;
// A worker is worth the way there and back from here on; below, a shard does it faster itself.
constexpr uint64_t kLargestInline = 64 * kKiB;
constexpr uint64_t kPiece = 256 * kKiB;  // what a worker does at a time
constexpr std::size_t kPiecesAtOnce = 4;
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }  // wipes it
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

enum class Direction : uint8_t { kDecrypt, kEncrypt };

absl::Status CipherFailed() { return absl::InternalError("the cipher library failed"); }

const EVP_CIPHER* FindCipher(LuksCipher cipher, std::size_t key_bytes) {
  if (cipher == LuksCipher::kAesXtsPlain64) {
    if (key_bytes == 32) return EVP_aes_128_xts();
    return key_bytes == 64 ? EVP_aes_256_xts() : nullptr;
  }
  if (key_bytes == 16) return EVP_aes_128_cbc();
  if (key_bytes == 24) return EVP_aes_192_cbc();
  return key_bytes == 32 ? EVP_aes_256_cbc() : nullptr;
}

const unsigned char* Raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}
unsigned char* Raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

// A context with `key`; null if the library refuses it.
Context NewContext(const EVP_CIPHER* cipher, Bytes key, Direction direction) {
  Context context(EVP_CIPHER_CTX_new());
  if (context == nullptr ||
      EVP_CipherInit_ex(context.get(), cipher, nullptr, Raw(key.data()), nullptr,
                        direction == Direction::kEncrypt ? 1 : 0) != 1 ||
      EVP_CIPHER_CTX_set_padding(context.get(), 0) != 1) {
    return nullptr;
  }
  return context;
}

Context Copy(const Context& from) {
  Context copy(EVP_CIPHER_CTX_new());
  const bool copied = copy != nullptr && EVP_CIPHER_CTX_copy(copy.get(), from.get()) == 1;
  return copied ? std::move(copy) : nullptr;
}

// The keyed cipher of one direction. One thread at a time; Copy() only reads.
struct SectorCipher {
  Context data;
  Context essiv;  // null where IVs are not encrypted
  uint32_t sector_bytes = 0;

  // Transforms whole sectors, in place or not. `iv`: of the first.
  absl::Status Transform(uint64_t iv, Bytes from, MutableBytes to);
};

absl::Status SectorCipher::Transform(uint64_t iv, Bytes from, MutableBytes to) {
  std::array<std::byte, kIvBytes> vector;
  for (std::size_t done = 0; done < from.size();
       done += sector_bytes, iv += sector_bytes / kIvUnit) {
    vector.fill(std::byte{0});
    std::memcpy(vector.data(), &iv, sizeof(iv));  // little-endian
    int length = 0;
    if (essiv != nullptr && EVP_CipherUpdate(essiv.get(), Raw(vector.data()), &length,
                                             Raw(vector.data()), kIvBytes) != 1) {
      return CipherFailed();
    }
    if (EVP_CipherInit_ex(data.get(), nullptr, nullptr, nullptr, Raw(vector.data()), -1) != 1 ||
        EVP_CipherUpdate(data.get(), Raw(to.data() + done), &length, Raw(from.data() + done),
                         static_cast<int>(sector_bytes)) != 1 ||
        length != static_cast<int>(sector_bytes)) {
      return CipherFailed();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SectorCipher> NewSectorCipher(const LuksVolume& volume, Direction direction) {
  SectorCipher made;
  made.sector_bytes = volume.sector_bytes;
  const EVP_CIPHER* const cipher = FindCipher(volume.cipher, volume.key.size());
  if (cipher != nullptr) made.data = NewContext(cipher, volume.key.bytes(), direction);
  if (made.data == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the volume's key, of ", volume.key.size(),
                                                   " bytes, does not fit its cipher"));
  }
  if (volume.cipher == LuksCipher::kAesCbcEssivSha256) {
    Secret salt(EVP_MAX_MD_SIZE);
    unsigned length = 0;
    if (EVP_Digest(volume.key.bytes().data(), volume.key.size(), Raw(salt.bytes().data()), &length,
                   EVP_sha256(), nullptr) != 1) {
      return CipherFailed();
    }
    salt.Shorten(length);
    made.essiv = NewContext(EVP_aes_256_ecb(), salt.bytes(), Direction::kEncrypt);
    if (made.essiv == nullptr) return CipherFailed();
  }
  return made;
}

absl::StatusOr<SectorCipher> Copy(const SectorCipher& from) {
  SectorCipher copy{Copy(from.data), from.essiv == nullptr ? nullptr : Copy(from.essiv),
                    from.sector_bytes};
  if (copy.data == nullptr || (from.essiv != nullptr && copy.essiv == nullptr)) {
    return CipherFailed();
  }
  return copy;
}

// Both directions: `shared` is only read, by all threads; `own` is the shard's.
struct Ciphers {
  struct Pair {
    SectorCipher shared;
    SectorCipher own;
  };
  Pair decrypt;
  Pair encrypt;
};

absl::StatusOr<Ciphers::Pair> NewPair(const LuksVolume& volume, Direction direction) {
  Ciphers::Pair pair;
  ASSIGN_OR_RETURN(pair.shared, NewSectorCipher(volume, direction));
  ASSIGN_OR_RETURN(pair.own, Copy(pair.shared));
  return pair;
}

// What of a volume is needed once the ciphers have the key.
struct Layout {
  std::string entry_id;
  ByteOffset data_offset;
  std::optional<ByteCount> size;
  uint32_t sector_bytes;
  uint64_t iv_offset;
};

block::Limits LimitsAbove(const block::Limits& child, const Layout& layout) {
  CHECK(IsMultiple(layout.data_offset.value | layout.sector_bytes, child.alignment.value));
  block::Limits limits = child;
  uint64_t size = child.size.value - std::min(child.size.value, layout.data_offset.value);
  if (layout.size.has_value()) size = std::min(size, layout.size->value);
  limits.size.value = RoundDown(size, layout.sector_bytes);
  limits.alignment.value = layout.sector_bytes;
  limits.alignment_from = layout.entry_id;
  limits.fast_zero = false;
  return limits;
}

class LuksFilter final : public Filter {
 public:
  LuksFilter(block::Node& child_node, Environment environment, Layout layout, Ciphers ciphers,
             bool allow_discards, runtime::Workers& workers)
      : Filter(child_node, LimitsAbove(child_node.limits(), layout), std::move(environment)),
        layout_(std::move(layout)),
        allow_discards_(allow_discards),
        ciphers_(std::move(ciphers)),
        workers_(workers),
        lock_(this->environment().ready),
        staging_(this->environment().ready, kStagingBudget,
                 std::max<std::size_t>(kPage, child_node.limits().memory_alignment)) {}

  std::optional<ByteRange> OriginOf(ByteRange& range) const override { return Below(range); }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override {
    return WritePieces(range, src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override {
    if (options.fast_only) return absl::UnimplementedError("an encrypted disk has no fast zeros");
    return WritePieces(range, {}, {.durable = options.durable});
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (!allow_discards_) return absl::OkStatus();
    return Discard(range);
  }
  Task<absl::Status> DoCache(ByteRange range) override { return child().Cache(Below(range)); }
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount) override {
    return absl::UnimplementedError("an encrypted disk is not resized from above");
  }
  block::Limits DeriveLimits(const block::Limits& child_limits) const override {
    return LimitsAbove(child_limits, layout_);
  }

  ByteRange Below(ByteRange range) const {
    return {layout_.data_offset + ByteCount{range.offset.value}, range.length};
  }
  uint64_t IvOf(ByteOffset offset) const { return layout_.iv_offset + offset.value / kIvUnit; }

  Task<absl::Status> Discard(ByteRange range);
  // The range at `offset`, here or by a worker, whichever is better for its length.
  Task<absl::Status> Transform(Ciphers::Pair& pair, ByteOffset offset, Bytes from, MutableBytes to);
  Task<absl::Status> TransformElsewhere(const SectorCipher& cipher, uint64_t iv, Bytes from,
                                        MutableBytes to);
  Task<absl::Status> Decrypt(ByteRange range, MutableBytes bytes);
  // No `src`: zeros.
  Task<absl::Status> WritePieces(ByteRange range, Bytes src, block::WriteOptions options);
  Task<absl::Status> WritePiece(ByteRange range, Bytes src, block::WriteOptions options);

  const Layout layout_;
  const bool allow_discards_;
  Ciphers ciphers_;
  runtime::Workers& workers_;
  block::RangeLock lock_;
  block::StagingPool staging_;
};

Task<absl::Status> LuksFilter::Transform(Ciphers::Pair& pair, ByteOffset offset, Bytes from,
                                         MutableBytes to) {
  if (from.size() > kLargestInline) {
    return TransformElsewhere(pair.shared, IvOf(offset), from, to);
  }
  return pair.own.Transform(IvOf(offset), from, to);
}

Task<absl::Status> LuksFilter::TransformElsewhere(const SectorCipher& cipher, uint64_t iv,
                                                  Bytes from, MutableBytes to) {
  const auto transform = [&cipher, iv, from, to]() -> absl::Status {
    ASSIGN_OR_RETURN(SectorCipher copy, Copy(cipher));
    return copy.Transform(iv, from, to);
  };
  absl::Status status = co_await workers_.Run(transform);
  co_return status;
}

Task<absl::Status> LuksFilter::Decrypt(ByteRange range, MutableBytes bytes) {
  absl::Status status;
  for (std::size_t done = 0; done < bytes.size() && status.ok();) {
    std::vector<Task<absl::Status>> pieces;
    for (; done < bytes.size() && pieces.size() < kPiecesAtOnce;) {
      const std::size_t length = std::min<std::size_t>(kPiece, bytes.size() - done);
      const MutableBytes piece = bytes.subspan(done, length);
      pieces.push_back(Transform(ciphers_.decrypt, range.offset + ByteCount{done}, piece, piece));
      done += length;
    }
    for (Task<absl::Status>& piece : pieces) {
      const absl::Status one = co_await piece;
      if (status.ok()) status = one;
    }
  }
  co_return status;
}

Task<absl::Status> LuksFilter::DoRead(ByteRange range, MutableBytes dst) {
  const block::RangeLock::Guard guard =
      co_await lock_.Acquire(range, block::RangeLockMode::kShared);
  CO_RETURN_IF_ERROR(co_await child().Read(Below(range), dst));
  if (dst.size() > kLargestInline) co_return co_await Decrypt(range, dst);
  co_return ciphers_.decrypt.own.Transform(IvOf(range.offset), dst, dst);
}

Task<absl::Status> LuksFilter::WritePieces(ByteRange range, Bytes src,
                                           block::WriteOptions options) {
  const block::RangeLock::Guard guard =
      co_await lock_.Acquire(range, block::RangeLockMode::kExclusive);
  if (range.length.value <= kPiece) co_return co_await WritePiece(range, src, options);
  absl::Status status;
  for (uint64_t done = 0; done < range.length.value && status.ok();) {
    std::vector<Task<absl::Status>> pieces;
    for (; done < range.length.value && pieces.size() < kPiecesAtOnce;) {
      const uint64_t length = std::min(kPiece, range.length.value - done);
      const Bytes part = src.empty() ? src : src.subspan(done, length);
      pieces.push_back(WritePiece(Range(range.offset.value + done, length), part, options));
      done += length;
    }
    for (Task<absl::Status>& piece : pieces) {
      const absl::Status one = co_await piece;
      if (status.ok()) status = one;
    }
  }
  co_return status;
}

Task<absl::Status> LuksFilter::WritePiece(ByteRange range, Bytes src, block::WriteOptions options) {
  block::StagingPool::Buffer buffer = co_await staging_.Take(range.length.value);
  const MutableBytes encrypted = buffer.bytes();
  Bytes from = src;
  if (src.empty()) {
    std::memset(encrypted.data(), 0, encrypted.size());
    from = encrypted;
  }
  CO_RETURN_IF_ERROR(co_await Transform(ciphers_.encrypt, range.offset, from, encrypted));
  co_return co_await child().Write(Below(range), encrypted, options);
}

Task<absl::Status> LuksFilter::Discard(ByteRange range) {
  const block::RangeLock::Guard guard =
      co_await lock_.Acquire(range, block::RangeLockMode::kExclusive);
  co_return co_await child().Discard(Below(range));
}

Task<absl::StatusOr<block::ExtentList>> LuksFilter::DoBlockStatus(ByteRange range,
                                                                  std::size_t max_extents) {
  absl::StatusOr<block::ExtentList> below = co_await child().BlockStatus(Below(range), max_extents);
  if (!below.ok()) co_return below.status();
  block::ExtentList list;
  for (block::Extent extent : *below) {
    extent.range.offset = range.offset + (extent.range.offset - Below(range).offset);
    if (extent.kind == block::ExtentKind::kUnallocated) extent.layer = limits().layers;
    extent.kind = block::ExtentKind::kData;
    AppendExtent(list, extent);
  }
  co_return list;
}

}  // namespace

std::string LuksIdentity(const LuksVolume& volume) {
  std::string text = absl::StrCat(static_cast<int>(volume.cipher), " ", volume.sector_bytes, " ");
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  const Bytes key = volume.key.bytes();
  CHECK_EQ(EVP_Digest(key.data(), key.size(), digest.data(), &length, EVP_sha256(), nullptr), 1);
  text.append(reinterpret_cast<const char*>(digest.data()), length);
  return text;
}

absl::StatusOr<std::unique_ptr<Filter>> NewLuks(block::Node& child, Environment environment,
                                                std::string entry_id, LuksVolume volume,
                                                bool allow_discards, runtime::Workers& workers) {
  CHECK_LT(volume.data_offset.value, child.limits().size.value);
  CHECK(IsPowerOfTwo(volume.sector_bytes));
  CHECK(volume.sector_bytes >= kIvUnit && volume.sector_bytes <= kPage);
  CHECK(IsMultiple(volume.data_offset.value, kIvUnit));
  Ciphers ciphers;
  ASSIGN_OR_RETURN(ciphers.decrypt, NewPair(volume, Direction::kDecrypt));
  ASSIGN_OR_RETURN(ciphers.encrypt, NewPair(volume, Direction::kEncrypt));
  Layout layout{std::move(entry_id), volume.data_offset, volume.size, volume.sector_bytes,
                volume.iv_offset};
  return std::make_unique<LuksFilter>(child, std::move(environment), std::move(layout),
                                      std::move(ciphers), allow_discards, workers);
}

}  // namespace gabion::filters
