#include "service/domain/image_file.h"

#include <gtest/gtest.h>

#include "service/errors.h"

namespace gabion::service {
namespace {

TEST(ImageFileTest, SpellingsOfOneNameBecomeOne) {
  for (const char* name : {"a/b.raw", "./a/b.raw", "a//b.raw", "a/./b.raw", "a/b.raw/"}) {
    EXPECT_EQ(*NormalizeFileName(name), "a/b.raw") << name;
  }
}

TEST(ImageFileTest, NamesThatLeadOutAreRefused) {
  for (const char* name : {"", ".", "/", "/a", "..", "a/..", "../a", "a/../b"}) {
    EXPECT_EQ(InfoOf(NormalizeFileName(name).status()).reason(), "PATH_OUTSIDE_POOL") << name;
  }
}

TEST(ImageFileTest, FilesOfImagesAreRecognized) {
  EXPECT_EQ(ImageOfFileName("a.raw"), "images/a");
  EXPECT_EQ(ImageOfFileName("a.img"), std::nullopt);
  EXPECT_EQ(ImageOfFileName("sub/a.raw"), std::nullopt);
  EXPECT_EQ(ImageOfFileName(".raw"), std::nullopt);
  v1::Image image;
  image.set_name("images/a");
  EXPECT_EQ(ImageOfFileName(SpecOf(image).file_name), "images/a");
}

}  // namespace
}  // namespace gabion::service
