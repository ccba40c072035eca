#include "service/domain/image_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/protobuf/util/message_differencer.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;

TEST(ImageLayoutTest, WhatIsLeftOutIsTheDefault) {
  const engine::Qcow2Layout layout = LayoutOf(v1::Qcow2Format());
  const engine::Qcow2Layout defaults;
  EXPECT_EQ(layout.version, 3u);
  EXPECT_EQ(layout.cluster_bits, 16u);
  EXPECT_EQ(layout.refcount_order, 4u);
  EXPECT_EQ(layout.extended_l2, defaults.extended_l2);
  EXPECT_EQ(layout.lazy_refcounts, defaults.lazy_refcounts);
  EXPECT_EQ(layout.compression, engine::ImageCompression::kDeflate);
}

TEST(ImageLayoutTest, EverySizeAndWidthIsToldAsItWasAskedFor) {
  for (uint32_t cluster = 512; cluster <= 2097152; cluster *= 2) {
    for (uint32_t width = 1; width <= 64; width *= 2) {
      v1::Qcow2Format format;
      format.set_version(3);
      format.set_cluster_size_bytes(cluster);
      format.set_refcount_bits(width);
      format.set_extended_l2(cluster >= 16384);
      format.set_lazy_refcounts(width == 16);
      format.set_compression(width > 8 ? v1::Qcow2Format::COMPRESSION_ZSTD
                                       : v1::Qcow2Format::COMPRESSION_ZLIB);
      EXPECT_TRUE(MessageDifferencer::Equals(TellLayout(LayoutOf(format)), format))
          << format.ShortDebugString();
    }
  }
}

TEST(ImageLayoutTest, AnImageIsToldWithAllOfItsLayout) {
  v1::Image image;
  image.mutable_qcow2()->set_cluster_size_bytes(4096);
  EXPECT_EQ(WithLayout(image).qcow2().ShortDebugString(),
            "cluster_size_bytes: 4096 compression: COMPRESSION_ZLIB version: 3 refcount_bits: 16");
  v1::Image raw;
  raw.mutable_raw();
  EXPECT_TRUE(WithLayout(raw).has_raw());
}

TEST(ImageLayoutTest, AFileThatIsImportedHasItsOwn) {
  v1::Image image;
  EXPECT_TRUE(CheckNoLayout(image).ok());
  image.mutable_qcow2();
  EXPECT_TRUE(CheckNoLayout(image).ok());
  image.mutable_qcow2()->set_lazy_refcounts(true);
  EXPECT_THAT(ViolationsOf(CheckNoLayout(image)), ElementsAre("image.qcow2 FIELD_INVALID"));
  image.mutable_raw();
  EXPECT_TRUE(CheckNoLayout(image).ok());
}

}  // namespace
}  // namespace gabion::service
