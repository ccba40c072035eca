// What the files of new images consist of: no files are touched here.
#include "engine/base/reason.h"
#include "engine/engine.h"
#include "engine/image_format.h"

namespace gabion::engine {
namespace {

qcow2::CreateOptions OptionsOf(const ImageBuild& build) {
  qcow2::CreateOptions options;
  options.size = build.size.value;
  options.version = build.qcow2.version;
  options.cluster_bits = build.qcow2.cluster_bits;
  options.refcount_order = build.qcow2.refcount_order;
  options.extended_l2 = build.qcow2.extended_l2;
  options.lazy_refcounts = build.qcow2.lazy_refcounts;
  options.compression = build.qcow2.compression == ImageCompression::kZstd
                            ? qcow2::Compression::kZstd
                            : qcow2::Compression::kDeflate;
  options.preallocate_metadata = build.preallocation != Preallocation::kOff;
  if (!build.spec.backing.empty()) {
    const ImageSpec& below = build.spec.backing.front();
    options.backing_file = below.file_name;
    options.backing_format = below.format == ImageFormat::kRaw ? "raw" : "qcow2";
  }
  return options;
}

}  // namespace

absl::StatusOr<qcow2::NewImageLayout> LayoutOf(const ImageBuild& build) {
  return qcow2::NewImageLayout::Plan(OptionsOf(build));
}

absl::StatusOr<MeasuredImage> MeasureImage(const ImageBuild& build, ByteCount allocated) {
  if (build.spec.format == ImageFormat::kRaw) return MeasuredImage{build.size, build.size};
  const absl::StatusOr<qcow2::ImageBytes> bytes =
      qcow2::Measure(OptionsOf(build), allocated.value >> build.qcow2.cluster_bits);
  if (!bytes.ok()) return WithReason(bytes.status(), {"FIELD_INVALID", {{"field", "image.qcow2"}}});
  return MeasuredImage{ByteCount{bytes->required}, ByteCount{bytes->fully_allocated}};
}

}  // namespace gabion::engine
