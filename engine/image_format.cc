#include "engine/image_format.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/formats/qcow2/header_extensions.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

absl::Status ReadAt(int fd, uint64_t offset, MutableBytes dst) {
  while (!dst.empty()) {
    const ssize_t got = pread(fd, dst.data(), dst.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io::ErrnoStatus(errno, "read");
    if (got == 0) return absl::DataLossError("the file is shorter than its header");
    offset += static_cast<uint64_t>(got);
    dst = dst.subspan(static_cast<std::size_t>(got));
  }
  return absl::OkStatus();
}

absl::Status WriteAt(int fd, uint64_t offset, Bytes src) {
  while (!src.empty()) {
    const ssize_t put = pwrite(fd, src.data(), src.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return io::ErrnoStatus(errno, "write");
    offset += static_cast<uint64_t>(put);
    src = src.subspan(static_cast<std::size_t>(put));
  }
  return absl::OkStatus();
}

constexpr std::size_t kStartBytes = 104;
constexpr std::string_view kQcow2Magic("QFI\xfb", 4);

bool NamesProtocolOrPath(std::string_view name) {
  const std::size_t colon = name.find(':');
  const std::size_t slash = name.find('/');
  return colon != std::string_view::npos || slash != std::string_view::npos;
}

}  // namespace

ImageSpec BackingOf(const ImageSpec& spec) {
  ImageSpec below = spec.backing.front();
  below.backing.assign(spec.backing.begin() + 1, spec.backing.end());
  return below;
}

absl::Status FormatError(const absl::Status& status, const ImageSpec& spec) {
  if (status.ok()) return status;
  const std::string message(status.message());
  const std::optional<Reason> reason = ReasonOf(status);
  if (reason.has_value() && reason->reason == "IMAGE_CORRUPT" && reason->metadata.empty()) {
    return WithReason(absl::DataLossError(absl::StrCat(spec.name, ": ", message)),
                      {"IMAGE_CORRUPT", {{"image", spec.name}}});
  }
  if (reason.has_value()) return status;
  if (absl::IsUnimplemented(status)) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(spec.name, ": ", message)),
                      {"FEATURE_UNSUPPORTED", {{"image", spec.name}, {"feature", message}}});
  }
  if (absl::IsFailedPrecondition(status)) {
    return WithReason(absl::DataLossError(absl::StrCat(spec.name, ": ", message)),
                      {"IMAGE_CORRUPT", {{"image", spec.name}}});
  }
  return Annotate(status, spec.name);
}

absl::StatusOr<qcow2::Header> ReadQcow2Header(int fd, ByteCount size, const ImageSpec& spec) {
  std::vector<std::byte> start(std::min<uint64_t>(size.value, kStartBytes));
  RETURN_IF_ERROR(ReadAt(fd, 0, start));
  const std::string_view magic(reinterpret_cast<const char*>(start.data()),
                               std::min(start.size(), kQcow2Magic.size()));
  if (magic != kQcow2Magic) {
    return WithReason(absl::InvalidArgumentError("the file is not a qcow2 file"),
                      {"FORMAT_MISMATCH", {}});
  }
  const absl::StatusOr<std::size_t> wanted = qcow2::HeaderBytesWanted(start);
  if (!wanted.ok()) return FormatError(wanted.status(), spec);
  std::vector<std::byte> bytes(std::min<uint64_t>(*wanted, size.value));
  RETURN_IF_ERROR(ReadAt(fd, 0, bytes));
  absl::StatusOr<qcow2::ParsedHeader> parsed =
      qcow2::ParseHeader(bytes, size, qcow2::Access::kRead);
  if (!parsed.ok()) return FormatError(parsed.status(), spec);
  return std::move(parsed->header);
}

Qcow2Info InfoOf(const qcow2::Header& header) {
  Qcow2Info info;
  info.layout = {.version = header.version,
                 .cluster_bits = header.cluster_bits,
                 .refcount_order = header.refcount_order,
                 .extended_l2 = header.extended_l2(),
                 .lazy_refcounts = header.lazy_refcounts(),
                 .compression = header.compression == qcow2::Compression::kZstd
                                    ? ImageCompression::kZstd
                                    : ImageCompression::kDeflate};
  info.dirty = header.dirty();
  info.corrupt = header.corrupt();
  info.backing_file = header.backing_file.value_or("");
  info.snapshots = header.snapshot_count;
  return info;
}

absl::Status DescribeImage(int fd, ByteCount size, const ImageSpec& spec, ImageInfo& info) {
  info.virtual_size = size;
  if (spec.format == ImageFormat::kRaw) return absl::OkStatus();
  ASSIGN_OR_RETURN(const qcow2::Header header, ReadQcow2Header(fd, size, spec));
  info.virtual_size.value = header.size;
  info.qcow2 = InfoOf(header);
  return absl::OkStatus();
}

absl::Status CheckImportable(const qcow2::Header& header, const ImageBuild& build) {
  const auto refused = [](const std::string& message, std::string feature) {
    return WithReason(absl::FailedPreconditionError(message),
                      {"FEATURE_UNSUPPORTED", {{"feature", std::move(feature)}}});
  };
  if (header.data_file.has_value()) {
    return refused(absl::StrCat("its data is in another file, ", qcow2::Quoted(*header.data_file),
                                "; external data files are not supported"),
                   "external data file");
  }
  const bool has_backing = !build.spec.backing.empty();
  if (!header.backing_file.has_value()) {
    if (!has_backing) return absl::OkStatus();
    return WithReason(absl::InvalidArgumentError("the file has no backing file, and backing_image "
                                                 "names one"),
                      {"FIELD_INVALID", {{"field", "image.backing_image"}}});
  }
  const std::string& name = *header.backing_file;
  const std::string shown = qcow2::Quoted(name);
  if (NamesProtocolOrPath(name)) {
    return refused(absl::StrCat("its backing file is '", shown,
                                "'; only a name without a protocol and without a path is taken, "
                                "of a file beside it"),
                   "backing file with a protocol or path");
  }
  if (!has_backing) {
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat("the file needs its backing file, '", shown,
                                                "'; import that one first, and name the image in "
                                                "backing_image")),
        {"FIELD_REQUIRED", {{"field", "image.backing_image"}}});
  }
  const std::string& file_name = build.spec.backing.front().file_name;
  if (build.move && name != file_name) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat(
                          "the file names '", shown, "' as its backing file, and the file of ",
                          build.spec.backing.front().name, " is '", file_name,
                          "'; a file that is moved is not rewritten: import a copy")),
                      {"FIELD_INVALID", {{"field", "source_file"}}});
  }
  return absl::OkStatus();
}

absl::Status WriteBackingName(int fd, const ImageSpec& spec) {
  const off_t size = lseek(fd, 0, SEEK_END);
  if (size < 0) return io::ErrnoStatus(errno, "seek");
  ASSIGN_OR_RETURN(qcow2::Header header,
                   ReadQcow2Header(fd, ByteCount{static_cast<uint64_t>(size)}, spec));
  if (spec.backing.empty()) return absl::OkStatus();
  const ImageSpec& below = spec.backing.front();
  const std::string format = below.format == ImageFormat::kRaw ? "raw" : "qcow2";
  if (header.backing_file == below.file_name && header.backing_format == format) {
    return absl::OkStatus();
  }
  header.backing_file = below.file_name;
  header.backing_format = format;
  ASSIGN_OR_RETURN(std::vector<std::byte> bytes, qcow2::SerializeHeader(header));
  bytes.resize(header.cluster_size());
  // A snapshot table that cannot be read was taken for none; what says where it is stays.
  constexpr std::size_t kBegin = qcow2::kSnapshotCountField;
  constexpr std::size_t kLength = qcow2::kSnapshotsOffsetField + sizeof(uint64_t) - kBegin;
  RETURN_IF_ERROR(ReadAt(fd, kBegin, MutableBytes(bytes).subspan(kBegin, kLength)));
  return WriteAt(fd, 0, bytes);
}

}  // namespace gabion::engine
