#include "engine/formats/qcow2/compression.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace gabion::qcow2 {
namespace {

// Raw deflate, without a zlib header. Readers take any window, but QEMU takes up to 4 KiB only.
constexpr int kReadWindowBits = -15;
constexpr int kWriteWindowBits = -12;

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("compressed cluster: ", what));
}

absl::Status TooShort(std::size_t got, std::size_t want) {
  return Damaged(absl::StrCat("the data ends after ", got, " of ", want, " bytes"));
}

absl::Status TooLong(std::size_t want) {
  return Damaged(absl::StrCat("the data is more than the ", want, " bytes of a cluster"));
}

// zlib's interface is older than const, but it does not write to its input.
void SetInput(z_stream& stream, Bytes input) {
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
}

void SetOutput(z_stream& stream, MutableBytes output) {
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
}

absl::Status InflateDeflate(Bytes compressed, MutableBytes cluster) {
  z_stream stream{};
  if (inflateInit2(&stream, kReadWindowBits) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to decompress a cluster");
  }
  const absl::Cleanup end = [&stream] { inflateEnd(&stream); };
  SetInput(stream, compressed);
  SetOutput(stream, cluster);
  int result = inflate(&stream, Z_NO_FLUSH);
  if (result == Z_OK && stream.avail_out == 0) {
    // The cluster is full, but the end of the data was not seen. If only its mark is missing, that
    // is no harm; if there is another byte, this is no cluster.
    std::byte more;
    SetOutput(stream, {&more, 1});
    result = inflate(&stream, Z_NO_FLUSH);
    if (stream.avail_out == 0) return TooLong(cluster.size());
    return result == Z_DATA_ERROR ? Damaged("the data is not deflate") : absl::OkStatus();
  }
  if (result == Z_MEM_ERROR) {
    return absl::ResourceExhaustedError("no memory to decompress a cluster");
  }
  if (result != Z_STREAM_END && result != Z_OK && result != Z_BUF_ERROR) {
    return Damaged("the data is not deflate");
  }
  if (stream.avail_out != 0) return TooShort(cluster.size() - stream.avail_out, cluster.size());
  return absl::OkStatus();
}

// Whether `compressed` begins with a frame of today's zstd, or one to be skipped: the library would
// also take those of its first versions, by decoders that nobody looks after.
bool IsZstdFrame(Bytes compressed) {
  uint32_t magic;  // little-endian
  if (compressed.size() < sizeof(magic)) return false;
  std::memcpy(&magic, compressed.data(), sizeof(magic));
  constexpr uint32_t kSkippable = 0x184d2a50;
  return magic == ZSTD_MAGICNUMBER || (magic & 0xfffffff0) == kSkippable;
}

// Frame by frame, each straight into the cluster, which serves as the window: so a frame that asks
// for a large one costs nothing.
absl::Status InflateZstd(Bytes compressed, MutableBytes cluster) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     &ZSTD_freeDCtx);
  if (context == nullptr) {
    return absl::ResourceExhaustedError("no memory to decompress a cluster");
  }
  std::size_t filled = 0;
  while (filled < cluster.size()) {
    if (compressed.empty()) return TooShort(filled, cluster.size());
    if (!IsZstdFrame(compressed)) return Damaged("the data is not zstd");
    const std::size_t frame = ZSTD_findFrameCompressedSize(compressed.data(), compressed.size());
    if (ZSTD_isError(frame)) {
      return Damaged(absl::StrCat("the data is no whole zstd frame: ", ZSTD_getErrorName(frame)));
    }
    const std::size_t got = ZSTD_decompressDCtx(context.get(), cluster.data() + filled,
                                                cluster.size() - filled, compressed.data(), frame);
    if (ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall) return TooLong(cluster.size());
    if (ZSTD_isError(got)) {
      return Damaged(absl::StrCat("the zstd frame is broken: ", ZSTD_getErrorName(got)));
    }
    filled += got;
    compressed = compressed.subspan(frame);
  }
  return absl::OkStatus();
}

absl::Status NotSmaller() {
  return absl::ResourceExhaustedError("the cluster does not get small enough by compression");
}

absl::StatusOr<std::size_t> DeflateDeflate(Bytes cluster, MutableBytes out) {
  constexpr int kMemoryLevel = 8;  // zlib's default
  z_stream stream{};
  CHECK_EQ(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWriteWindowBits, kMemoryLevel,
                        Z_DEFAULT_STRATEGY),
           Z_OK);
  const absl::Cleanup end = [&stream] { deflateEnd(&stream); };
  SetInput(stream, cluster);
  SetOutput(stream, out);
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) return NotSmaller();
  return out.size() - stream.avail_out;
}

absl::StatusOr<std::size_t> DeflateZstd(Bytes cluster, MutableBytes out) {
  const std::size_t got =
      ZSTD_compress(out.data(), out.size(), cluster.data(), cluster.size(), ZSTD_CLEVEL_DEFAULT);
  if (ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall) return NotSmaller();
  CHECK(!ZSTD_isError(got));
  return got;
}

}  // namespace

absl::Status Inflate(Compression compression, Bytes compressed, MutableBytes cluster) {
  switch (compression) {
    case Compression::kDeflate:
      return InflateDeflate(compressed, cluster);
    case Compression::kZstd:
      return InflateZstd(compressed, cluster);
  }
  CHECK(false);
}

absl::StatusOr<std::size_t> Deflate(Compression compression, Bytes cluster, MutableBytes out) {
  switch (compression) {
    case Compression::kDeflate:
      return DeflateDeflate(cluster, out);
    case Compression::kZstd:
      return DeflateZstd(cluster, out);
  }
  CHECK(false);
}

}  // namespace gabion::qcow2
