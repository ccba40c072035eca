#include "service/domain/image_chains.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ImageChainsTest, TellsWhatStandsOnAnImageInOrder) {
  ImageChains chains;
  EXPECT_FALSE(chains.HasImagesOn("images/a"));
  EXPECT_THAT(chains.ImagesOn("images/a"), IsEmpty());
  chains.Add("images/c", "images/a");
  chains.Add("images/b", "images/a");
  chains.Add("images/d", "images/c");
  EXPECT_TRUE(chains.HasImagesOn("images/a"));
  EXPECT_THAT(chains.ImagesOn("images/a"), ElementsAre("images/b", "images/c"));
  EXPECT_THAT(chains.ImagesOn("images/c"), ElementsAre("images/d"));
  EXPECT_FALSE(chains.HasImagesOn("images/d"));
}

TEST(ImageChainsTest, TellsTheChainFromTheTop) {
  ImageChains chains;
  chains.Add("images/b", "images/a");
  chains.Add("images/c", "images/b");
  EXPECT_THAT(chains.ChainOf("images/c"), ElementsAre("images/c", "images/b", "images/a"));
  EXPECT_THAT(chains.ChainOf("images/a"), ElementsAre("images/a"));
  EXPECT_THAT(chains.ChainOf("images/none"), ElementsAre("images/none"));
}

TEST(ImageChainsTest, ForgetsWhatIsRemoved) {
  ImageChains chains;
  chains.Add("images/b", "images/a");
  chains.Add("images/c", "images/a");
  chains.Remove("images/b");
  EXPECT_THAT(chains.ImagesOn("images/a"), ElementsAre("images/c"));
  chains.Remove("images/c");
  chains.Remove("images/c");
  EXPECT_FALSE(chains.HasImagesOn("images/a"));
  EXPECT_THAT(chains.ChainOf("images/c"), ElementsAre("images/c"));
}

TEST(ImageChainsTest, WhatIsHiddenIsNotToldAndStillInTheWay) {
  ImageChains chains;
  chains.Add("images/b", "images/a");
  chains.Add("images/c", "images/a");
  chains.Hide("images/b");
  EXPECT_THAT(chains.ToldOn("images/a", 10), ElementsAre("images/c"));
  EXPECT_THAT(chains.ImagesOn("images/a"), ElementsAre("images/b", "images/c"));
  chains.Hide("images/c");
  EXPECT_THAT(chains.ToldOn("images/a", 10), IsEmpty());
  EXPECT_TRUE(chains.HasImagesOn("images/a"));
  chains.Remove("images/b");
  chains.Add("images/b", "images/a");  // another image of that name
  EXPECT_THAT(chains.ToldOn("images/a", 10), ElementsAre("images/b"));
  chains.Hide("images/none");
  EXPECT_THAT(chains.ChainOf("images/none"), ElementsAre("images/none"));
}

TEST(ImageChainsTest, TellsAtMostSoMany) {
  ImageChains chains;
  for (const char* image : {"images/b", "images/c", "images/d"}) chains.Add(image, "images/a");
  EXPECT_THAT(chains.ToldOn("images/a", 2), ElementsAre("images/b", "images/c"));
  chains.Hide("images/b");
  EXPECT_THAT(chains.ToldOn("images/a", 2), ElementsAre("images/c", "images/d"));
}

}  // namespace
}  // namespace gabion::service
