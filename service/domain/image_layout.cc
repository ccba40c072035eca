#include "service/domain/image_layout.h"

#include <bit>
#include <cstdint>

#include "google/protobuf/util/message_differencer.h"
#include "service/errors.h"

namespace gabion::service {

engine::Qcow2Layout LayoutOf(const v1::Qcow2Format& format) {
  engine::Qcow2Layout layout;
  if (format.version() != 0) layout.version = format.version();
  if (format.cluster_size_bytes() != 0) {
    layout.cluster_bits = static_cast<uint32_t>(std::countr_zero(format.cluster_size_bytes()));
  }
  if (format.refcount_bits() != 0) {
    layout.refcount_order = static_cast<uint32_t>(std::countr_zero(format.refcount_bits()));
  }
  layout.extended_l2 = format.extended_l2();
  layout.lazy_refcounts = format.lazy_refcounts();
  if (format.compression() == v1::Qcow2Format::COMPRESSION_ZSTD) {
    layout.compression = engine::ImageCompression::kZstd;
  }
  return layout;
}

v1::Qcow2Format TellLayout(const engine::Qcow2Layout& layout) {
  v1::Qcow2Format told;
  told.set_version(layout.version);
  told.set_cluster_size_bytes(uint32_t{1} << layout.cluster_bits);
  told.set_refcount_bits(uint32_t{1} << layout.refcount_order);
  told.set_extended_l2(layout.extended_l2);
  told.set_lazy_refcounts(layout.lazy_refcounts);
  told.set_compression(layout.compression == engine::ImageCompression::kZstd
                           ? v1::Qcow2Format::COMPRESSION_ZSTD
                           : v1::Qcow2Format::COMPRESSION_ZLIB);
  return told;
}

v1::Image WithLayout(v1::Image image) {
  if (image.has_qcow2()) *image.mutable_qcow2() = TellLayout(LayoutOf(image.qcow2()));
  return image;
}

absl::Status CheckNoLayout(const v1::Image& image) {
  const bool is_given = image.has_qcow2() && !google::protobuf::util::MessageDifferencer::Equals(
                                                 image.qcow2(), v1::Qcow2Format());
  if (!is_given) return absl::OkStatus();
  constexpr std::string_view kMessage = "A file that is imported has its own; leave them out.";
  return Error(reason::kFieldInvalid, kMessage).Field("image.qcow2", kMessage);
}

}  // namespace gabion::service
